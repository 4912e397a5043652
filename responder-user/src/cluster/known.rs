//! The Leases last seen, by whatever way: what an update must keep of them, and what `responder status` shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::coordination::v1::Lease;
use responder_leadership::id::Version;

use super::{
    follow::prune,
    names::{BadVersion, Named, version},
};

/// The Leases last seen.
#[derive(Clone, Default, Debug)]
pub struct Known(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    version: Version,
    lease: Lease,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a Lease, unless a later one is known. With its version.
    ///
    /// # Errors
    ///
    /// If its version cannot be compared.
    pub fn learn(&self, mut lease: Lease) -> Result<Version, BadVersion> {
        let version = version(&lease.metadata)?;
        prune(&mut lease.metadata);
        let name = lease.metadata.name.clone().unwrap_or_default();
        let mut entries = self.lock();
        if entries.get(&name).is_none_or(|entry| entry.version < version) {
            entries.insert(name, Entry { version, lease });
        }
        Ok(version)
    }

    /// Forgets a Lease that was gone at `version`.
    pub fn forget(&self, name: &str, version: Version) {
        let mut entries = self.lock();
        if entries.get(name).is_some_and(|entry| entry.version <= version) {
            entries.remove(name);
        }
    }

    /// Forgets all that a list at `version` did not have, `listed` being what it had; with their versions.
    ///
    /// What is known of a later version was made after the list.
    pub fn retain(&self, listed: &BTreeSet<String>, version: Version) -> Vec<(Named, Version)> {
        let mut gone = Vec::new();
        self.lock().retain(|name, entry| {
            let stays = listed.contains(name) || entry.version > version;
            if !stays && let Some(named) = Named::parse(name) {
                gone.push((named, entry.version));
            }
            stays
        });
        gone
    }

    /// A Lease as last seen.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Lease> {
        self.lock().get(name).map(|entry| entry.lease.clone())
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Lease> {
        self.lock().values().map(|entry| entry.lease.clone()).collect()
    }
}
