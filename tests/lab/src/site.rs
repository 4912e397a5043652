//! A host with an agent and VIPs in one state, and a client that asks for them with real tools.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    Agent, Capture, Commands, Lab, Mac, NetNs, Node, Output, StaticFile,
    frames::{self, Arp, Body, Frame},
    send, tools, wait_until,
};

/// The IPv4 VIP.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The IPv6 VIP.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Both.
pub const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

const SOON: Duration = Duration::from_secs(20);

/// What the VIPs are to the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Owned, and the agent alive.
    Owned,
    /// Known, owned elsewhere.
    Standby,
    /// Owned once, the deadline passed: the agent was killed.
    Expired,
    /// Not in the agent's file.
    Unknown,
}

/// Host `a` with the VIPs also on its `lo` and on a bridge without ports, where its kernel would answer for them,
/// and client `c`, all of whose received ARP and Neighbor Discovery frames are recorded. VLAN tags are in the frames.
pub struct Site {
    heard: Capture,
    agent: Option<Agent>,
    commands: Commands,
    barriers: Cell<u16>,
    /// The namespaces.
    pub lab: Lab,
}

impl Site {
    /// Builds it and waits until the VIPs are in `state` and nothing is announced any more. `options` are the
    /// agent's.
    ///
    /// # Errors
    ///
    /// If the lab cannot be built or the agent does not get there.
    pub fn new(state: State, options: &[&str]) -> Result<Self> {
        let lab = Lab::builder().hosts(&["a"]).build()?;
        let a = lab.node("a");
        a.add_to_lo(&VIPS)?;
        a.ns().ip("link add vips0 type bridge\nlink set vips0 up")?;
        for vip in VIPS {
            a.ns().add_address("vips0", vip)?;
        }
        // Otherwise VLAN tags travel beside the frames, where neither the program nor the record sees them.
        for node in [a, lab.node("c")] {
            lab.switch().check(&["ethtool", "-K", &Lab::port(node, "eth0"), "txvlan", "off"])?;
        }
        let heard = Capture::start(lab.node("c").ns(), "eth0")?;
        let file = StaticFile::on(&["eth0"]);
        let file = match state {
            State::Owned | State::Expired => file.own(&VIPS),
            State::Standby => file.standby(&VIPS),
            State::Unknown => file.own(&["192.0.2.77".parse()?, "2001:db8::77".parse()?]),
        };
        let fence = if state == State::Expired { "1s" } else { "1m" };
        let agent = Agent::start(
            a,
            &file,
            &[&["--announce-interval", "0", "--fence", fence, "--suppress", "1h"], options].concat(),
        )?;
        let commands = agent.commands().clone();
        if state == State::Owned {
            let is_na = |f: &Frame| f.is_gratuitous(VIPS[1]);
            heard.wait_for_many("announcement", 3, SOON, is_na)?;
            let is_arp = |f: &Frame| f.is_gratuitous(VIPS[0]);
            heard.wait_for_many("announcement", 6, SOON, is_arp)?;
        }
        let mut site = Self { heard, agent: Some(agent), commands, barriers: Cell::new(0), lab };
        if state == State::Expired {
            site.agent.take().context("just started")?.kill()?;
        }
        let name = match state {
            State::Owned => Some("answering"),
            State::Standby => Some("standby"),
            State::Expired => Some("expired"),
            State::Unknown => None,
        };
        for vip in VIPS {
            wait_until(&format!("{vip} {name:?}"), SOON, || {
                let shown = site.vip(vip).ok()?;
                (shown.as_ref().and_then(|v| v.get("state")).and_then(Value::as_str) == name).then_some(())
            })?;
        }
        Ok(site)
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Node {
        self.lab.node("a")
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> &NetNs {
        self.lab.node("c").ns()
    }

    /// The client's hardware address.
    #[must_use]
    pub fn client_mac(&self) -> Mac {
        self.lab.node("c").mac()
    }

    /// The agent.
    ///
    /// # Panics
    ///
    /// If it was killed ([`State::Expired`]).
    pub fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the agent runs unless the state is Expired")
    }

    /// The operator's commands, also when the agent is gone.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// What the client hears.
    #[must_use]
    pub fn heard(&self) -> &Capture {
        &self.heard
    }

    /// What `status` says about a VIP.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn vip(&self, vip: IpAddr) -> Result<Option<Value>> {
        let status = self.commands.status()?;
        let list = status.get("vips").and_then(Value::as_array).context("no vips in the status")?;
        let shown = vip.to_string();
        Ok(list.iter().find(|v| v.get("vip").and_then(Value::as_str) == Some(&shown)).cloned())
    }

    /// How often frames have had this outcome.
    ///
    /// # Errors
    ///
    /// If the status cannot be had.
    pub fn received(&self, outcome: &str) -> Result<u64> {
        let status = self.commands.status()?;
        Ok(status.pointer(&format!("/received/{outcome}")).and_then(Value::as_u64).unwrap_or(0))
    }

    /// Runs a tool at the client and returns it with all answers for the VIPs that came until the host had dealt
    /// with everything that the tool sent.
    ///
    /// # Errors
    ///
    /// If it cannot be run, or the host does not answer for its own address.
    pub fn answers(&self, argv: &[&str]) -> Result<(Output, Vec<Frame>)> {
        self.heard.clear();
        let output = tools::run(self.client(), argv)?;
        Ok((output, self.answers_so_far()?))
    }

    /// The answers for the VIPs that came since the record was cleared, once the host has dealt with all that was
    /// sent to it.
    ///
    /// # Errors
    ///
    /// If the host does not answer for its own address.
    pub fn answers_so_far(&self) -> Result<Vec<Frame>> {
        self.barrier()?;
        Ok(self.heard.frames().into_iter().filter(is_answer).collect())
    }

    /// Waits until the host has dealt with all that was sent to it: asks for its own address, which its kernel
    /// answers, twice, because what the driver sends back leaves when a batch of received frames ends.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn barrier(&self) -> Result<()> {
        for _ in 0..2 {
            let number = self.barriers.get();
            self.barriers.set(number.wrapping_add(1));
            let [high, low] = number.to_be_bytes();
            // Its own hardware address tells this question's answer from earlier ones'.
            let asker = Mac([2, 0xba, 0, 0, high, low]);
            let question = frames::arp_request(asker, Ipv4Addr::UNSPECIFIED, self.host().nics()[0].v4);
            send(self.client(), "eth0", &question)?;
            self.heard.wait_for(
                "the host's own answer",
                SOON,
                |f| matches!(f.body, Body::Arp(Arp { op: 2, tha, .. }) if tha == asker),
            )?;
        }
        Ok(())
    }

    /// Fails unless `answers` are `count` answers by the host, of the right form and padded with zeros.
    ///
    /// # Errors
    ///
    /// Otherwise, naming `what`.
    pub fn expect(&self, what: &str, answers: &[Frame], count: usize) -> Result<()> {
        ensure!(
            answers.len() == count,
            "{what}: {} answers instead of {count}, such as {:?}",
            answers.len(),
            answers.iter().take(3).map(|f| (f.src, f.dst, f.body)).collect::<Vec<_>>()
        );
        for answer in answers {
            let mac = answer.claim().map(|(_, mac)| mac);
            ensure!(mac == Some(self.host().mac()) && answer.src == self.host().mac(), "{what}: {answer:?}");
            match answer.body {
                Body::Arp(arp) => ensure!(
                    arp.tha == answer.dst
                        && answer.vlan.is_none_or(|vlan| vlan == 0)
                        && answer.bytes.get(46..).is_none_or(|pad| pad.iter().all(|b| *b == 0)),
                    "{what}: {answer:?}"
                ),
                Body::Advertisement(na) => {
                    ensure!(na.checksum_ok && na.flags & 0x20 != 0, "{what}: {answer:?}");
                }
                Body::Solicitation(_) => {}
            }
        }
        Ok(())
    }
}

/// True for answers for the VIPs; ARP announcements are none.
fn is_answer(frame: &Frame) -> bool {
    let is_reply = match frame.body {
        Body::Arp(arp) => arp.op == 2 && arp.spa != arp.tpa,
        Body::Advertisement(_) => true,
        Body::Solicitation(_) => false,
    };
    is_reply && frame.claim().is_some_and(|(ip, _)| VIPS.contains(&ip))
}
