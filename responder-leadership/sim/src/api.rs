//! The API server and its store, as far as Leases are concerned.

use std::{collections::BTreeMap, sync::Arc};

use responder_leadership::{
    event::{Event, Via},
    id::{Object, Version},
    lease::{Content, Seen},
};

/// What is stored under a Lease's name.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Stored {
    Good(Content),
    /// What nobody can understand.
    Bad(&'static str),
}

/// A change of an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: Version,
    pub(crate) object: Object,
    /// What is there now; `None`: it was deleted.
    pub(crate) now: Option<Arc<Stored>>,
}

/// How the server answers a write.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Answer {
    /// Stored.
    Stored(Version),
    /// Nothing to store: it is so already.
    Same(Version),
    /// The object has another version, exists, or does not.
    Conflict,
}

/// The store. Its version grows with every change of any object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Api {
    version: u64,
    objects: BTreeMap<Object, (Version, Arc<Stored>)>,
    log: Vec<Change>,
}

/// All objects at one version.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) version: Version,
    pub(crate) objects: Vec<(Object, Version, Arc<Stored>)>,
}

impl Api {
    /// Creates (no base) or updates.
    pub(crate) fn write(&mut self, object: &Object, base: Option<Version>, content: &Content) -> Answer {
        let there = self.objects.get(object);
        if there.map(|(version, _)| *version) != base {
            return Answer::Conflict;
        }
        if let Some((version, stored)) = there
            && matches!(&**stored, Stored::Good(same) if same == content)
        {
            return Answer::Same(*version);
        }
        Answer::Stored(self.put(object.clone(), Stored::Good(content.clone())))
    }

    /// Stores without asking.
    pub(crate) fn put(&mut self, object: Object, stored: Stored) -> Version {
        self.version += 1;
        let version = Version(self.version);
        let stored = Arc::new(stored);
        self.log.push(Change { version, object: object.clone(), now: Some(Arc::clone(&stored)) });
        self.objects.insert(object, (version, stored));
        version
    }

    /// A change of what nobody here looks at: a label, say.
    pub(crate) fn touch(&mut self, object: &Object) {
        if let Some((_, stored)) = self.objects.get(object) {
            let stored = Stored::clone(stored);
            self.put(object.clone(), stored);
        }
    }

    /// Deletes what is there.
    pub(crate) fn delete(&mut self, object: &Object) {
        if self.objects.remove(object).is_some() {
            self.version += 1;
            self.log.push(Change { version: Version(self.version), object: object.clone(), now: None });
        }
    }

    pub(crate) fn get(&self, object: &Object) -> Option<&(Version, Arc<Stored>)> {
        self.objects.get(object)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Object, &Stored)> {
        self.objects.iter().map(|(object, (_, stored))| (object, &**stored))
    }

    pub(crate) fn log(&self) -> &[Change] {
        &self.log
    }

    pub(crate) fn list(&self) -> List {
        let objects = self.objects.iter().map(|(o, (v, s))| (o.clone(), *v, Arc::clone(s))).collect();
        List { version: Version(self.version), objects }
    }

    /// Where in the log the changes after `version` begin.
    pub(crate) fn after(&self, version: Version) -> usize {
        self.log.partition_point(|change| change.version <= version)
    }
}

/// Tells what an object is like.
pub(crate) fn told(object: &Object, version: Version, stored: Option<&Stored>, via: Via) -> Event {
    match object {
        Object::Session(node) => {
            let seen = match stored {
                None => Seen::Absent,
                Some(Stored::Good(Content::Session(session))) => Seen::Good(session.clone()),
                Some(Stored::Good(Content::Claim(_))) => Seen::Bad("a claim".to_owned()),
                Some(Stored::Bad(why)) => Seen::Bad((*why).to_owned()),
            };
            Event::Session { node: node.clone(), version, seen, via }
        }
        Object::Claim(group) => {
            let seen = match stored {
                None => Seen::Absent,
                Some(Stored::Good(Content::Claim(claim))) => Seen::Good(claim.clone()),
                Some(Stored::Good(Content::Session(_))) => Seen::Bad("a session".to_owned()),
                Some(Stored::Bad(why)) => Seen::Bad((*why).to_owned()),
            };
            Event::Claim { group: *group, version, seen, via }
        }
    }
}
