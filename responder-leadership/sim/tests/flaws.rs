//! Faults planted into the machine are found.
#![cfg(feature = "flaws")]

use responder_leadership::flaw::Flaw;
use responder_sim::{
    Fault, Faults, How, Profile,
    exhaustive::{Bounds, explore},
    run,
};

/// What brings a flaw to light soon, and within how many schedules it must.
fn profile(flaw: Flaw) -> (Profile, u64) {
    let (faults, schedules): (&[Fault], u64) = match flaw {
        Flaw::DeadlineFromArrival => (&[Fault::SlowApi, Fault::Kill, Fault::Cut, Fault::CutOut], 3000),
        Flaw::NoMargin => (&[Fault::Skew, Fault::Kill, Fault::Cut, Fault::CutOut], 3000),
        Flaw::TakeWithoutRevoke => (&[Fault::SlowWatch, Fault::CutWatch, Fault::Pause], 3000),
        Flaw::ResumeAtOnce | Flaw::ResumeAfterRead => {
            (&[Fault::Move, Fault::Local, Fault::Demand, Fault::Late, Fault::LoseResponses], 3000)
        }
        Flaw::MissingIsDead => (&[Fault::DeleteSession, Fault::SlowWatch, Fault::CutWatch], 3000),
        Flaw::OtherIncarnationIsDead => (&[Fault::Reboot, Fault::SlowWatch, Fault::Move, Fault::Kill], 3000),
        Flaw::ForgetExceptions => (&[Fault::Kill, Fault::Demand], 1000),
        Flaw::GiveBeforeSilence => (&[Fault::Interrupt, Fault::Move, Fault::Local], 3000),
        Flaw::TakeUnclearAtOnce => (&[Fault::DeleteClaim, Fault::EditClaim, Fault::SlowWatch], 1000),
        Flaw::IdenticalRewrite => {
            (&[Fault::Move, Fault::Local, Fault::Demand, Fault::Late, Fault::LoseResponses], 3000)
        }
        Flaw::StartOverOthers => (&[Fault::Twin], 1000),
    };
    let always = Faults::of(faults);
    (Profile { always, sometimes: Faults::NONE, nodes: 4, vips: 6, recovery: false }, schedules)
}

const FLAWS: [Flaw; 12] = [
    Flaw::DeadlineFromArrival,
    Flaw::NoMargin,
    Flaw::TakeWithoutRevoke,
    Flaw::ResumeAtOnce,
    Flaw::ResumeAfterRead,
    Flaw::MissingIsDead,
    Flaw::OtherIncarnationIsDead,
    Flaw::ForgetExceptions,
    Flaw::GiveBeforeSilence,
    Flaw::TakeUnclearAtOnce,
    Flaw::IdenticalRewrite,
    Flaw::StartOverOthers,
];

#[test]
fn every_flaw_is_found() {
    let mut missed = Vec::new();
    for flaw in FLAWS {
        let (profile, schedules) = profile(flaw);
        let how = How { trace: false, flaw: Some(flaw) };
        let found = (1..=schedules).find_map(|seed| Some((seed, run(seed, &profile, how).violation?)));
        match found {
            Some((seed, violation)) => println!("{flaw:?}: after {seed} schedules: {violation}"),
            None => missed.push(flaw),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn without_a_flaw_the_same_schedules_are_good() {
    for flaw in FLAWS {
        let (profile, _) = profile(flaw);
        for seed in 1..=300 {
            let violation = run(seed, &profile, How::default()).violation;
            assert!(violation.is_none(), "schedules for {flaw:?}, seed {seed}: {violation:?}");
        }
    }
}

/// What one fault or two in a small cluster bring to light.
#[test]
fn flaws_are_found_in_small_clusters() {
    let one = Bounds::of(2, 1, 1);
    for (flaw, bounds) in [
        (Flaw::TakeWithoutRevoke, one),
        (Flaw::MissingIsDead, Bounds { deletions: true, ..one }),
        (Flaw::TakeUnclearAtOnce, Bounds { deletions: true, ..Bounds::of(2, 1, 2) }),
    ] {
        let found = explore(Bounds { flaw: Some(flaw), ..bounds }, 2);
        println!(
            "{flaw:?}: {} states, {:?}",
            found.states,
            found.violation.as_ref().map(|v| v.lines().count())
        );
        assert!(found.violation.is_some(), "{flaw:?} was not found in {bounds}: {} states", found.states);
    }
}
