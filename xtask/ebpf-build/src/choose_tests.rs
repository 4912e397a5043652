use std::path::PathBuf;

use super::*;

fn compiler(kind: Kind, release: &str, llvm: u32) -> Compiler {
    let verbose = format!("host: x86_64-unknown-linux-gnu\nrelease: {release}\nLLVM version: {llvm}.1.2\n");
    Compiler {
        kind,
        name: release.to_owned(),
        sysroot: PathBuf::from("/toolchains").join(release),
        version: Version::parse(&verbose).unwrap(),
        has_source: true,
    }
}

fn linker(llvm: u32) -> Linker {
    Linker { path: PathBuf::from(format!("/linkers/{llvm}")), release: "0.13.0".into(), llvm }
}

fn both() -> Survey {
    Survey {
        compilers: vec![compiler(Kind::Rustup, "1.95.0", 22), compiler(Kind::Debian, "1.96.0", 22)],
        linkers: vec![linker(22)],
    }
}

#[test]
fn rustup_comes_first() {
    let choice = choose(&both(), Wanted::Auto).unwrap();
    assert_eq!(choice.compiler.kind, Kind::Rustup);
    assert!(choice.why.contains("before Debian's, which would do"), "{}", choice.why);
}

#[test]
fn as_asked() {
    let choice = choose(&both(), Wanted::Only(Kind::Debian)).unwrap();
    assert_eq!(choice.compiler.kind, Kind::Debian);
    assert_eq!(choice.why, "debian was asked for");
}

#[test]
fn the_linker_must_match() {
    let mut survey = both();
    survey.compilers[0] = compiler(Kind::Rustup, "1.98.0", 23);
    survey.linkers = vec![linker(21), linker(22)];
    let choice = choose(&survey, Wanted::Auto).unwrap();
    assert_eq!(choice.compiler.kind, Kind::Debian);
    assert_eq!(choice.linker.llvm, 22);
    assert!(choice.why.contains("1.98.0"), "{}", choice.why);
    assert!(choice.why.contains("there is no bpf-linker with LLVM 23"), "{}", choice.why);
}

#[test]
fn the_source_must_be_there() {
    let mut survey = both();
    survey.compilers[0].has_source = false;
    let choice = choose(&survey, Wanted::Auto).unwrap();
    assert_eq!(choice.compiler.kind, Kind::Debian);
    assert!(choice.why.contains("source of its library is not installed"), "{}", choice.why);
}

#[test]
fn another_toolchain_of_rustup() {
    let mut survey = both();
    survey.compilers[0].has_source = false;
    survey.compilers.insert(1, compiler(Kind::Rustup, "1.97.0-nightly", 22));
    assert_eq!(choose(&survey, Wanted::Auto).unwrap().compiler.name, "1.97.0-nightly");
}

#[test]
fn the_other_kind_is_explained() {
    let mut survey = both();
    survey.compilers.pop();
    let why = choose(&survey, Wanted::Auto).unwrap().why;
    assert!(why.contains("Debian's (rustc-web, cargo-web) is not installed"), "{why}");
    survey = both();
    survey.compilers.remove(0);
    let why = choose(&survey, Wanted::Auto).unwrap().why;
    assert!(why.contains("there is no toolchain of rustup"), "{why}");
    survey = both();
    survey.compilers[1] = compiler(Kind::Debian, "1.63.0", 14);
    let why = choose(&survey, Wanted::Auto).unwrap().why;
    assert!(why.contains("older than 1.95"), "{why}");
}

#[test]
fn nothing_will_do() {
    let mut survey = both();
    survey.compilers[0].has_source = false;
    survey.linkers.clear();
    let none = choose(&survey, Wanted::Auto).unwrap_err();
    assert_eq!(none.refused.len(), 2);
    assert_eq!(none.refused[1].1, Obstacle::NoLinker(22));
    let text = none.to_string();
    assert!(text.contains("source of its library") && text.contains("no bpf-linker with LLVM 22"), "{text}");

    let none = choose(&Survey::default(), Wanted::Only(Kind::Debian)).unwrap_err();
    assert!(none.to_string().contains("rustc-web"), "{none}");
    assert!(!none.to_string().contains("rustup"), "{none}");
}

#[test]
fn names() {
    assert_eq!("auto".parse(), Ok(Wanted::Auto));
    assert_eq!("debian".parse(), Ok(Wanted::Only(Kind::Debian)));
    assert!("gcc".parse::<Wanted>().unwrap_err().contains("`gcc`"));
}
