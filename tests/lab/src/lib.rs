//! Hosts and clients around a switch, in network namespaces, for tests and the demo: real kernels, links and tools,
//! and measurements of what they see.
//!
//! ```no_run
//! use std::time::Duration;
//! use responder_lab::{Agent, Lab, Prober, Probing, StaticFile, tools};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().build()?; // hosts a and b, client c
//! let (a, c) = (lab.node("a"), lab.node("c"));
//! let vip = "192.0.2.10".parse()?;
//! let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[vip]), &["--fence", "5s"])?;
//!
//! let prober = Prober::start(c.ns(), Probing::new(vip, Duration::from_millis(1)))?;
//! prober.wait_answer_by(a.mac(), Duration::from_secs(5))?;
//! agent.kill()?; // the datapath goes on answering
//! let report = prober.stop()?;
//! assert!(report.unanswered.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Everything is removed when the [`Lab`] is dropped, when the process panics or gets SIGINT, SIGTERM or SIGHUP, and,
//! after a SIGKILL, by the next process that builds a lab.

mod agent;
mod asking;
mod bpf;
mod capture;
mod cgroup;
mod cleanup;
mod cluster;
pub mod frames;
mod http;
mod hypervisor;
mod lab;
mod mac;
mod neigh;
mod node;
mod ns;
mod observer;
mod packet;
pub mod paths;
mod prober;
mod process;
mod question;
mod relay;
mod report;
mod sightings;
pub mod site;
mod skip;
mod start;
mod status;
mod time;
pub mod tools;
pub mod traffic;

pub use agent::{Agent, Commands, READY_DEADLINE, StaticFile};
pub use bpf::{XdpSeen, bpftool, program_exists, reference_program, xdp_on};
pub use capture::Capture;
pub use cleanup::{cleanup_kept, cleanup_stale};
pub use cluster::{
    Api, Audit, Cluster, ClusterAgent, ClusterBuilder, ClusterNode, Cut, ENDPOINT_PORT, Elsewhere, Endpoint,
    LAB_IMAGE, Mark, NAMESPACE, Pod, ProxyMode, Request, Server, Service, check_nodes, cluster_or_skip,
    elsewhere_or_skip, kubelets_or_skip, serve_control_plane,
};
pub use http::{HttpAnswer, http_get};
pub use hypervisor::{Meanwhile, Paused, serve_hypervisor};
pub use lab::{Builder, Lab, namespaces};
pub use mac::Mac;
pub use neigh::{Change, Neighbour, NeighbourWatch, neighbour, neighbours, resolve};
pub use node::{BPFFS, Nic, Node};
pub use ns::{COMMAND_DEADLINE, NetNs};
pub use observer::Observer;
pub use packet::{send, send_all};
pub use prober::{GRACE, Prober, Probing};
pub use process::{Output, Process};
pub use relay::{connect, relay};
pub use report::{Answer, Double, Report, Silence};
pub use sightings::{Account, Sighting, Tenure};
pub use skip::{kernel, kernel_or_skip, root_or_skip, skip, tools_or_skip};
pub use status::Status;
pub use time::{BootTime, wait_until};
