//! Finds a toolchain that can build the eBPF objects, and builds them.
//!
//! Used by `cargo xtask build-ebpf`, which can also install what is missing, and by the agent's build script,
//! which never installs anything. Two toolchains are known ([`Kind`]); either needs the compiler's library
//! source (core is built for the BPF target) and a `bpf-linker` that reads the compiler's LLVM bitcode.
//!
//! [`Survey::take`] looks at the machine, [`choose()`] decides and gives its reasons, [`build()`] builds.

mod build;
mod choose;
mod linker;
mod rustc;
mod survey;

pub use crate::{
    build::{Endian, OBJECTS, Request, build, cargo, inherited, target_dir},
    choose::{Choice, NoToolchain, Obstacle, Wanted, choose},
    linker::{LINKER_VERSION, Linker, cache_dir, linker_dir},
    rustc::Version,
    survey::{Compiler, Kind, Survey},
};
