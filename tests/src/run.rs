//! The programs in the kernel: loaded without pins, their maps filled from a [`Host`], run under
//! `BPF_PROG_TEST_RUN`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use nix::time::{ClockId, clock_gettime};
use responder_common::{
    egress::EgressOutcomes,
    layout::{
        self, EGRESS, EGRESS_PROGRAM, EVENT_LIMIT, EVENTS, Event, EventLimit, FENCE, Fence as FenceValue,
        Fenced, LINK_BACKUP, LINK_FORWARDS, LINK_ROUTER, LINKS, Link as LinkValue, LinkKey, Prefix4, SLOTS,
        SlotState, VIPS4, VIPS6, Vip4, Vip6, VipKey4, VipKey6, VipStats, XDP_FRAGS_PROGRAM, XDP_PROGRAM,
    },
    outcome::Outcomes,
};

use crate::{
    frames::Verdict,
    model::{Fence, Host, Part, Place},
};

/// The largest frame that comes back.
const LARGEST: usize = 4096;

/// Directory of the object files.
#[must_use]
pub fn object_dir() -> PathBuf {
    std::env::var_os("RESPONDER_BPF_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf")), PathBuf::from)
}

/// Reads an object file.
///
/// # Errors
///
/// If it cannot be read; the message says how to build it.
pub fn object(name: &str) -> Result<Vec<u8>> {
    let path = object_dir().join(name);
    std::fs::read(&path).with_context(|| {
        format!("cannot read {}: run `cargo xtask build-ebpf`, or set RESPONDER_BPF_DIR", path.display())
    })
}

/// An address and the length of its prefix, as in the map.
#[must_use]
pub fn prefix((addr, bits): (Ipv4Addr, u8)) -> Prefix4 {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    Prefix4 { addr: addr.octets(), mask: mask.to_be_bytes() }
}

/// CLOCK_BOOTTIME in ns.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has CLOCK_BOOTTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    vips4: HashMap<MapData, VipKey4, Vip4>,
    vips6: HashMap<MapData, VipKey6, Vip6>,
    links: HashMap<MapData, LinkKey, LinkValue>,
    slots: Array<MapData, [u64; 2]>,
    fence: Array<MapData, Fenced>,
    outcomes: PerCpuArray<MapData, Outcomes>,
    egress: Option<PerCpuArray<MapData, EgressOutcomes>>,
    event_limit: PerCpuArray<MapData, EventLimit>,
    events: RingBuf<MapData>,
}

/// The two entry points of the XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// For frames in one buffer.
    Plain,
    /// For frames in several buffers, too.
    Frags,
}

impl Program {
    /// Those that this kernel has to take: frames in several buffers came with 5.18.
    #[must_use]
    pub fn of_this_kernel() -> &'static [Self] {
        if responder_lab::kernel() < (5, 18) { &[Self::Plain] } else { &[Self::Plain, Self::Frags] }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => XDP_PROGRAM,
            Self::Frags => XDP_FRAGS_PROGRAM,
        }
    }
}

impl Kernel {
    /// Loads everything; `capacity` is the size of the two maps of addresses, if it is not to be the default.
    ///
    /// # Errors
    ///
    /// If the object is not there or the kernel refuses something.
    pub fn load(capacity: Option<u32>) -> Result<Self> {
        let names: Vec<_> = Program::of_this_kernel().iter().map(|program| program.name()).collect();
        Self::open("responder.o", &names, capacity)
    }

    /// Loads these XDP programs of an object that has the responder's maps, and the egress program if it is there.
    ///
    /// # Errors
    ///
    /// As [`Kernel::load`].
    pub fn open(name: &str, programs: &[&str], capacity: Option<u32>) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        if let Some(capacity) = capacity {
            loader.map_max_entries(VIPS4, capacity).map_max_entries(VIPS6, capacity);
        }
        let mut ebpf = loader.load(&object(name)?)?;
        for &program in programs {
            let xdp: &mut Xdp = ebpf.program_mut(program).context(program.to_owned())?.try_into()?;
            xdp.load().with_context(|| format!("cannot load {program}"))?;
        }
        if let Some(tx) = ebpf.program_mut(EGRESS_PROGRAM) {
            let tx: &mut SchedClassifier = tx.try_into()?;
            tx.load().context("cannot load the egress program")?;
        }
        let egress = ebpf.take_map(EGRESS).map(TryInto::try_into).transpose()?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            vips4: take(VIPS4)?.try_into()?,
            vips6: take(VIPS6)?.try_into()?,
            links: take(LINKS)?.try_into()?,
            slots: take(SLOTS)?.try_into()?,
            fence: take(FENCE)?.try_into()?,
            outcomes: take(layout::OUTCOMES)?.try_into()?,
            egress,
            event_limit: take(EVENT_LIMIT)?.try_into()?,
            events: take(EVENTS)?.try_into()?,
            ebpf,
        })
    }

    /// The object's programs, and maps that the responder does not have.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Loads everything and makes the maps say what `host` says.
    ///
    /// # Errors
    ///
    /// As [`Kernel::load`] and [`Kernel::fill`].
    pub fn with(host: &Host) -> Result<Self> {
        let mut kernel = Self::load(None)?;
        kernel.fill(host)?;
        Ok(kernel)
    }

    /// Writes what `host` knows over what is there; counters of its addresses and the limit of events begin anew.
    ///
    /// # Errors
    ///
    /// If a map does not take it.
    pub fn fill(&mut self, host: &Host) -> Result<()> {
        for (&(ip, place), &slot) in &host.vips {
            self.add_vip(ip, place, slot)?;
        }
        for (&(ifindex, vlan), link) in &host.links {
            let part = match link.part {
                Part::Whole => 0,
                Part::Bridged => LINK_FORWARDS,
                Part::Backup => LINK_BACKUP,
            };
            let value = LinkValue {
                mac: link.mac,
                flags: part | if link.router { LINK_ROUTER } else { 0 },
                interface: ifindex,
                prefixes: link.own4.map(|own| own.map_or(Prefix4::default(), prefix)),
            };
            self.links.insert(LinkKey { ifindex, vlan }, value, 0)?;
        }
        for &slot in &host.owned {
            self.set_slot(slot, true)?;
        }
        let cpus = self.event_limit.get(&0, 0)?.len();
        self.event_limit.set(0, vec![EventLimit::default(); cpus].try_into()?, 0)?;
        self.set_fence(host.fence)
    }

    /// Makes an address known, with counters at zero.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn add_vip(&mut self, ip: IpAddr, (ifindex, vlan): Place, slot: u32) -> Result<()> {
        match ip {
            IpAddr::V4(ip) => {
                let key = VipKey4::new(ip.into(), ifindex, vlan);
                self.vips4.insert(key, Vip4::new(key, slot), 0)?;
            }
            IpAddr::V6(ip) => {
                let key = VipKey6::new(ip.into(), ifindex, vlan);
                self.vips6.insert(key, Vip6::new(key, slot), 0)?;
            }
        }
        Ok(())
    }

    /// Owns a slot or gives it up.
    ///
    /// # Errors
    ///
    /// If there is no such slot.
    pub fn set_slot(&mut self, slot: u32, owned: bool) -> Result<()> {
        let state = if owned { SlotState::Owned } else { SlotState::Standby };
        // `Slot` as two words: the state in the first half of the first one.
        let mut first = [0; 8];
        first[..4].copy_from_slice(&(state as u32).to_ne_bytes());
        Ok(self.slots.set(slot, [u64::from_ne_bytes(first), now_ns()], 0)?)
    }

    /// Sets both limits far ahead or just past.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn set_fence(&mut self, fence: Fence) -> Result<()> {
        let now = now_ns();
        match fence {
            Fence::Ahead => self.set_limits(u64::MAX, u64::MAX),
            Fence::Expired => self.set_limits(now, u64::MAX),
            Fence::Abandoned => self.set_limits(now, now),
        }
    }

    /// Sets deadline and end of suppression, in ns of CLOCK_BOOTTIME.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn set_limits(&mut self, deadline_ns: u64, suppress_until_ns: u64) -> Result<()> {
        let fence = FenceValue { deadline_ns, suppress_until_ns, heartbeat_ns: now_ns() };
        Ok(self.fence.set(0, Fenced { fence, ..Fenced::default() }, 0)?)
    }

    /// Gives a link its own addresses.
    ///
    /// # Errors
    ///
    /// If the link is not there.
    pub fn set_prefixes(&mut self, (ifindex, vlan): Place, prefixes: &[Prefix4]) -> Result<()> {
        let key = LinkKey { ifindex, vlan };
        let mut link = self.links.get(&key, 0)?;
        link.prefixes = Default::default();
        link.prefixes[..prefixes.len()].copy_from_slice(prefixes);
        Ok(self.links.insert(key, link, 0)?)
    }

    /// Runs an XDP program over a frame of at least 14 bytes, as if received on `lo`: what becomes of it, and the
    /// frame as the program left it.
    ///
    /// # Errors
    ///
    /// If the kernel cannot run it, or the program returns what is no verdict of ours.
    pub fn receive(&self, program: Program, frame: &[u8]) -> Result<(Verdict, Vec<u8>)> {
        let xdp: &Xdp = self.ebpf.program(program.name()).context(program.name())?.try_into()?;
        let mut out = [0; LARGEST];
        let result = xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })?;
        let after = out[..result.data_size_out as usize].to_vec();
        Ok(match result.return_value {
            1 => (Verdict::Drop, after),
            2 => (Verdict::Pass, after),
            3 => (Verdict::Answer(after.clone()), after),
            other => bail!("XDP verdict {other}"),
        })
    }

    /// Runs the egress program over a frame sent on `lo`: the tc verdict, and the frame as the program left it.
    ///
    /// # Errors
    ///
    /// If the kernel cannot run it.
    pub fn transmit(&self, frame: &[u8]) -> Result<(i32, Vec<u8>)> {
        let tx: &SchedClassifier = self.ebpf.program(EGRESS_PROGRAM).context(EGRESS_PROGRAM)?.try_into()?;
        let mut out = [0; LARGEST];
        let result = tx.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })?;
        Ok((result.return_value.cast_signed(), out[..result.data_size_out as usize].to_vec()))
    }

    /// Counters by outcome over all CPUs.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn outcomes(&self) -> Result<Outcomes> {
        let mut total = Outcomes::default();
        self.outcomes.get(&0, 0)?.iter().for_each(|cpu| total.add(cpu));
        Ok(total)
    }

    /// Counters of the egress program over all CPUs.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn egress(&self) -> Result<EgressOutcomes> {
        let mut total = EgressOutcomes::default();
        self.egress.as_ref().context("no egress program")?.get(&0, 0)?.iter().for_each(|cpu| total.add(cpu));
        Ok(total)
    }

    /// Counters of one address.
    ///
    /// # Errors
    ///
    /// If it is not known.
    pub fn stats(&self, ip: IpAddr, (ifindex, vlan): Place) -> Result<VipStats> {
        Ok(match ip {
            IpAddr::V4(ip) => self.vips4.get(&VipKey4::new(ip.into(), ifindex, vlan), 0)?.stats,
            IpAddr::V6(ip) => self.vips6.get(&VipKey6::new(ip.into(), ifindex, vlan), 0)?.stats,
        })
    }

    /// Takes the events out of the ring.
    ///
    /// # Panics
    ///
    /// If one has another size than [`Event`].
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = vec![];
        while let Some(item) = self.events.next() {
            assert_eq!(item.len(), size_of::<Event>(), "an event of another size");
            #[expect(unsafe_code, reason = "events are plain numbers")]
            // SAFETY: `Event` is valid for all bytes (it implements `Pod`), and there are enough of them (checked
            // above); the copy needs no alignment.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// Events sent or left out, over all CPUs: those left out for their rate, and those lost.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn events_missed(&self) -> Result<(u64, u64)> {
        let all = self.event_limit.get(&0, 0)?;
        Ok(all.iter().fold((0, 0), |(a, b), l| (a + l.limited, b + l.lost)))
    }
}
