//! Loading the programs.

use std::{collections::BTreeSet, fs, path::Path};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::MapInfo,
    programs::{SchedClassifier, Xdp},
};
use responder_common::{
    egress::EgressOutcomes,
    layout::{
        EGRESS, EGRESS_PROGRAM, EVENT_LIMIT, EVENTS, EventLimit, FENCE, Fenced, LINKS, Link, LinkKey, MAPS,
        OUTCOMES, SLOTS, Slot, VIPS4, VIPS6, Vip4, Vip6, VipKey4, VipKey6, XDP_FRAGS_PROGRAM, XDP_PROGRAM,
    },
    outcome::Outcomes,
};

use super::{
    DatapathError,
    pins::{Pins, names},
    probe::{self, Answer},
};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/responder.o"));
static OBJECT_WITH_LOG: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/responder-log.o"));

/// How to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Entries of each of the two VIP maps, if they have to be made.
    pub capacity: u32,
    /// With a log line for each frame looked at.
    pub log: bool,
}

/// Loaded programs that are pinned nowhere yet.
///
/// Loading is most of what an agent's start takes (0.3 s on an idle core, mostly the kernel's verifier), and what a kernel
/// may refuse: a successor does it while its predecessor still works.
#[derive(Debug)]
pub struct Prepared {
    ebpf: Ebpf,
    xdp: &'static str,
    options: LoadOptions,
    /// Kernel ids of the maps that were pinned before the programs were loaded, in the order of [`MAPS`].
    maps: Vec<u32>,
}

impl Prepared {
    /// Loads the programs beside an agent that runs, with its maps; `None` if not all of them are there. Nothing is pinned.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or a pinned map has a shape that this program does not know.
    pub fn beside(pins: &Pins, options: LoadOptions) -> Result<Option<Self>, DatapathError> {
        // Before loading: if others are pinned afterwards, those are not what was loaded with.
        let Ok(maps) = map_ids(pins) else {
            return Ok(None);
        };
        match Self::load(pins, options) {
            Ok(loaded) => Ok(Some(Self { maps, ..loaded })),
            // Somebody has removed them meanwhile.
            Err(_) if map_ids(pins).is_err() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Loads the programs. Maps that are pinned are used as they are, the others made and pinned.
    fn load(pins: &Pins, options: LoadOptions) -> Result<Self, DatapathError> {
        for (name, key, value) in shapes() {
            check_shape(&pins.map(name), key, value)?;
        }
        probe::raise_memory_limit();
        let mut loader = loader();
        for name in MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
        loader.map_max_entries(VIPS4, options.capacity).map_max_entries(VIPS6, options.capacity);
        let object = if options.log { OBJECT_WITH_LOG } else { OBJECT };
        let mut ebpf = loader.load(object).map_err(DatapathError::Load)?;

        // Multi-buffer programs need 5.18; elsewhere the plain one serves.
        let xdp = match load_xdp(&mut ebpf, XDP_FRAGS_PROGRAM) {
            Ok(()) => XDP_FRAGS_PROGRAM,
            Err(frags) => {
                tracing::debug!(error = %frags, "no multi-buffer XDP here");
                load_xdp(&mut ebpf, XDP_PROGRAM)?;
                XDP_PROGRAM
            }
        };
        let tx: &mut SchedClassifier = program(&mut ebpf, EGRESS_PROGRAM)?;
        tx.load().map_err(|source| DatapathError::Program { name: EGRESS_PROGRAM, source })?;
        Ok(Self { ebpf, xdp, options, maps: Vec::new() })
    }

    /// Whether the pinned maps are still those that the programs use.
    fn is_current(&self, pins: &Pins) -> bool {
        map_ids(pins).is_ok_and(|ids| ids == self.maps)
    }

    /// Pins the programs.
    fn pin(mut self, pins: &Pins) -> Result<Object, DatapathError> {
        let refused = |source| DatapathError::Program { name: EGRESS_PROGRAM, source };
        let tx: &mut SchedClassifier = program(&mut self.ebpf, EGRESS_PROGRAM)?;
        let tx_id = tx.info().map_err(refused)?.id();
        tx.pin(pins.progs_dir().join(format!("tx-{tx_id}"))).map_err(pin_error(pins))?;

        let name = self.xdp;
        let xdp: &mut Xdp = program(&mut self.ebpf, name)?;
        let xdp_id = xdp.info().map_err(|source| DatapathError::Program { name, source })?.id();
        xdp.pin(pins.progs_dir().join(format!("xdp-{xdp_id}"))).map_err(pin_error(pins))?;
        let has_links = probe::xdp_links(xdp) != Answer::No;
        let capacity = MapInfo::from_pin(pins.map(VIPS4)).map_or(self.options.capacity, |i| i.max_entries());
        Ok(Object { ebpf: self.ebpf, xdp: self.xdp, xdp_id, tx_id, capacity, has_links })
    }
}

/// A loader of these objects. They use none of the kernel's types (no CO-RE), so those are not read, which would
/// take more memory than all the rest of the agent.
pub(crate) fn loader<'a>() -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

/// Kernel ids of the pinned maps, in the order of [`MAPS`].
fn map_ids(pins: &Pins) -> Result<Vec<u32>, DatapathError> {
    let id = |name: &&'static str| {
        let info = MapInfo::from_pin(pins.map(name));
        info.map(|info| info.id()).map_err(|source| DatapathError::Map { name, source })
    };
    MAPS.iter().map(id).collect()
}

/// The programs of this agent.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    xdp: &'static str,
    /// Kernel ids of the two programs.
    pub xdp_id: u32,
    /// Kernel id of the egress program.
    pub tx_id: u32,
    /// Entries of each of the two VIP maps as they are.
    pub capacity: u32,
    /// Whether the kernel knows `bpf_link` for XDP.
    pub has_links: bool,
}

impl Object {
    /// Makes the programs this agent's, who has the lock: those that were loaded before, if the maps are still theirs, or new
    /// ones. Maps that are pinned are used as they are, the others made and pinned.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or a pinned map has a shape that this program does not know.
    pub fn load(pins: &Pins, options: LoadOptions, before: Option<Prepared>) -> Result<Self, DatapathError> {
        match before.filter(|prepared| prepared.options == options && prepared.is_current(pins)) {
            Some(prepared) => prepared.pin(pins),
            None => Prepared::load(pins, options)?.pin(pins),
        }
    }

    /// The XDP program.
    ///
    /// # Errors
    ///
    /// Not after a successful load.
    pub fn xdp(&mut self) -> Result<&mut Xdp, DatapathError> {
        program(&mut self.ebpf, self.xdp)
    }

    /// The egress program.
    ///
    /// # Errors
    ///
    /// Not after a successful load.
    pub fn tx(&mut self) -> Result<&mut SchedClassifier, DatapathError> {
        program(&mut self.ebpf, EGRESS_PROGRAM)
    }

    /// The name of the XDP program that is used.
    #[must_use]
    pub fn xdp_name(&self) -> &'static str {
        self.xdp
    }

    /// The object, for the reader of its log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Unpins the programs of earlier agents but those that still run somewhere (`running`, kernel ids of XDP
    /// programs), which could not be told from others' any more.
    pub fn forget_others(&self, pins: &Pins, running: &BTreeSet<u32>) {
        let runs = |name: &str| {
            name.strip_prefix("xdp-").and_then(|id| id.parse().ok()).is_some_and(|id| running.contains(&id))
        };
        let ours = [format!("xdp-{}", self.xdp_id), format!("tx-{}", self.tx_id)];
        for name in names(&pins.progs_dir()) {
            if ours.contains(&name) || runs(&name) {
                continue;
            }
            if let Err(error) = fs::remove_file(pins.progs_dir().join(&name)) {
                tracing::warn!(%name, %error, "cannot unpin an old program");
            }
        }
    }
}

/// True if `id` is one of the programs that this or an earlier agent has pinned.
#[must_use]
pub fn is_ours(pins: &Pins, kind: &str, id: u32) -> bool {
    pins.progs_dir().join(format!("{kind}-{id}")).exists()
}

fn pin_error(pins: &Pins) -> impl Fn(aya::pin::PinError) -> DatapathError {
    let path = pins.progs_dir();
    move |source| DatapathError::Pin { path: path.clone(), source }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, DatapathError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let found = ebpf.program_mut(name).ok_or(DatapathError::MapKind { name })?;
    found.try_into().map_err(|source| DatapathError::Program { name, source })
}

fn load_xdp(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let xdp: &mut Xdp = program(ebpf, name)?;
    xdp.load().map_err(|source| DatapathError::Program { name, source })
}

/// Sizes of key and value of every map; aya takes a pinned map without a look at it.
fn shapes() -> [(&'static str, u32, u32); 9] {
    const fn size<T>() -> u32 {
        size_of::<T>() as u32
    }
    const fn map<K: Pod, V>(name: &'static str) -> (&'static str, u32, u32) {
        (name, size::<K>(), size::<V>())
    }
    [
        map::<VipKey4, Vip4>(VIPS4),
        map::<VipKey6, Vip6>(VIPS6),
        map::<u32, Slot>(SLOTS),
        map::<u32, Fenced>(FENCE),
        map::<LinkKey, Link>(LINKS),
        map::<u32, Outcomes>(OUTCOMES),
        map::<u32, EgressOutcomes>(EGRESS),
        (EVENTS, 0, 0),
        map::<u32, EventLimit>(EVENT_LIMIT),
    ]
}

fn check_shape(path: &Path, key: u32, value: u32) -> Result<(), DatapathError> {
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(path).map_err(|source| DatapathError::Map { name: "pinned", source })?;
    for (what, found, needed) in
        [("a key size of", info.key_size(), key), ("a value size of", info.value_size(), value)]
    {
        if found != needed {
            return Err(DatapathError::MapShape { path: path.to_owned(), what, found, needed });
        }
    }
    Ok(())
}
