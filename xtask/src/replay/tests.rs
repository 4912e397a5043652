use std::time::Duration;

use responder_leadership::{
    event::Event,
    machine::Machine,
    settings::{Settings, Times},
};

use super::*;

/// The number of the machine's second write: numbers keep up with the clock, in µs.
const WRITE: u64 = 5_000_001;

/// A machine that begins a session, and is answered.
fn record() -> String {
    let settings = Settings {
        node: "n1".into(),
        datapath: "d".to_owned(),
        claims: 2.try_into().unwrap(),
        longest: Duration::from_secs(1),
        times: Times::of(Duration::from_secs(1)),
        seed: 1,
        wall: (1000, Duration::ZERO),
    };
    let mut machine = Machine::new(settings.clone(), None);
    let mut text = serde_json::to_string(&Begin { settings, adopted: None }).unwrap() + "\n";
    let written = Event::Written {
        write: WRITE,
        outcome: responder_leadership::event::Outcome::Unknown("timeout".to_owned()),
    };
    let synced = Event::Synced { listed_at: Duration::from_secs(5) };
    for (at, event) in [(5, synced), (6, written), (7, Event::Tick), (8, Event::Tick)] {
        let at = Duration::from_secs(at);
        let effects = machine.handle(at, event.clone());
        text += &(serde_json::to_string(&Entry { at, event, effects }).unwrap() + "\n");
    }
    text
}

fn timeline(text: &str) -> (Result<Played>, Vec<String>) {
    let mut told = Vec::new();
    let played = play(text, None, |line| {
        told.push(line.to_owned());
        Ok(())
    });
    (played, told)
}

#[test]
fn every_decision_is_made_again_and_told() {
    let (played, told) = timeline(&record());
    let played = played.unwrap();
    assert_eq!((played.events, played.difference, played.cut_off), (4, None, false));
    assert!(told[0].starts_with("node n1"), "{told:?}");
    assert!(told.iter().any(|line| line.contains("   0.000000  all Leases listed")), "{told:?}");
    assert!(
        told.iter().any(|line| line.contains(&format!("→ write {WRITE}: create the session of n1"))),
        "{told:?}"
    );
    assert!(told.iter().any(|line| line.contains("   3.000000  tick")), "{told:?}");
}

#[test]
fn what_was_changed_is_found_in_its_line() {
    let record = record();
    let number = record.lines().position(|line| line.contains("\"write\":{")).unwrap() + 1;
    let tampered = record.replacen("\"renewal\":5", "\"renewal\":9", 1);
    assert_ne!(tampered, record);
    let difference = timeline(&tampered).0.unwrap().difference.unwrap();
    assert!(difference.starts_with(&format!("line {number},")), "{difference}");
    assert!(difference.contains("recorded: ") && difference.contains("replayed: "), "{difference}");
}

#[test]
fn a_cut_off_last_line_is_left_out_and_others_are_not() {
    let record = record();
    let cut = &record[..record.len() - 3];
    let played = timeline(cut).0.unwrap();
    assert_eq!((played.events, played.cut_off, played.difference), (3, true, None));
    let error = timeline(&format!("{cut}\n")).0.err().unwrap().to_string();
    assert!(error.contains("line 5 cannot be read"), "{error}");
    assert!(timeline("").0.is_err() && timeline("{}\n").0.is_err());
}

#[test]
fn the_state_at_a_line_has_json() {
    let record = record();
    for line in 1..=5 {
        let played = play(&record, Some(line), |_| Ok(())).unwrap();
        assert_eq!(played.events, line - 1);
        let json = serde_json::to_value(played.replay.machine()).unwrap();
        assert_eq!(json["settings"]["node"], "n1");
    }
}
