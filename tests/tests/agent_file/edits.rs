//! Edits of the static file, by all the ways in which files are edited.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    time::Duration,
};

use nix::sys::signal::Signal;
use responder_lab::{Agent, Commands, Prober, Probing, StaticFile, root_or_skip, send_all, wait_until};

use super::agent_support::{
    SOON, Watch, assert_answers, count, one_host, question, states, v4, v6, wait_states, wait_status,
};

#[test]
fn an_edit_is_applied_as_a_difference() {
    if !root_or_skip("an_edit_is_applied_as_a_difference") {
        return;
    }
    let lab = one_host(2);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let file = || StaticFile::on(&["eth0"]).own(&[v4(10), v6(0x10)]);
    let mut agent = Agent::start(a, &file().own(&[v4(20)]), &["--fence", "30s"]).unwrap();
    let watch = Watch::start(a, &mut agent);
    let commands = agent.commands();
    let questions = [question(c, "eth0", v4(20)), question(c, "eth0", v6(0x10))];
    (0..5).for_each(|_| send_all(c.ns(), "eth0", &questions).unwrap());
    wait_status(commands, "five answers", |s| count(s, v4(20), "answered") == 5);
    let every = Duration::from_millis(2);
    let probers = [v4(10), v6(0x10)].map(|vip| Prober::start(c.ns(), Probing::new(vip, every)).unwrap());
    for prober in &probers {
        prober.wait_answer_by(a.mac(), SOON).unwrap();
    }

    let (ten, sixteen) = ((v4(10), "eth0", "answering"), (v6(0x10), "eth0", "answering"));
    // Added.
    agent.write(&file().own(&[v4(20), v4(21)])).unwrap();
    wait_states(commands, &[ten, sixteen, (v4(20), "eth0", "answering"), (v4(21), "eth0", "answering")]);
    assert_answers(c, "eth0", v4(21), a.mac());
    watch.wait_vip("gained", v4(21));
    // Owned to standby, and removed. The entry's counters stay.
    agent.write(&file().standby(&[v4(20)])).unwrap();
    let status = wait_states(commands, &[ten, sixteen, (v4(20), "eth0", "standby")]);
    assert_eq!(count(&status, v4(20), "answered"), 5);
    watch.wait_vip("lost", v4(20));
    watch.wait_vip("lost", v4(21));
    send_all(c.ns(), "eth0", &questions[..1]).unwrap();
    wait_status(commands, "a suppressed question", |s| count(s, v4(20), "suppressed") == 1);
    // Standby to owned.
    agent.write(&file().own(&[v4(20)])).unwrap();
    let status = wait_states(commands, &[ten, sixteen, (v4(20), "eth0", "answering")]);
    assert_eq!((count(&status, v4(20), "answered"), count(&status, v4(20), "suppressed")), (5, 1));
    watch.wait_vip("gained", v4(20));
    // To another interface, while the others stay.
    agent.write(&file().own_on(v4(20), &["eth1"])).unwrap();
    wait_states(commands, &[ten, sixteen, (v4(20), "eth1", "answering")]);
    assert_answers(c, "eth1", v4(20), a.nics()[1].mac);

    for prober in probers {
        let report = prober.stop().unwrap();
        assert!(report.unanswered.is_empty(), "of {}: {:?}", report.sent.len(), report.silences);
    }
    let unchanged = [v4(10).to_string(), v6(0x10).to_string()];
    let events = watch.events();
    let about = |e: &&serde_json::Value| unchanged.iter().any(|vip| e["vip"] == vip.as_str());
    let touched: Vec<_> = events.iter().filter(about).filter(|e| e["event"] != "announced").collect();
    assert!(touched.is_empty(), "nothing happened to the unchanged ones: {touched:?}");
}

/// A file that names one address besides the one that always stays.
fn text(n: u8) -> String {
    StaticFile::on(&["eth0"]).own(&[v4(10), v4(n)]).text()
}

/// Waits until the address that `text(n)` names is there with the one that always stays, and no other.
fn applied(commands: &Commands, n: u8) {
    wait_states(commands, &[(v4(10), "eth0", "answering"), (v4(n), "eth0", "answering")]);
}

fn write_in_two_steps(path: &Path, n: u8, between: impl FnOnce()) {
    let text = text(n);
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = File::create(path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    between();
    file.write_all(second.as_bytes()).unwrap();
}

#[test]
fn every_way_of_editing_a_file() {
    if !root_or_skip("every_way_of_editing_a_file") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &["--fence", "30s"]).unwrap();
    let commands = agent.commands().clone();
    let path = commands.file();
    let prober = Prober::start(c.ns(), Probing::new(v4(10), Duration::from_millis(2))).unwrap();
    prober.wait_answer_by(a.mac(), SOON).unwrap();

    // Written in place.
    fs::write(path, text(20)).unwrap();
    applied(&commands, 20);
    // In two steps, with half a file in between for as long as 100 more questions take.
    write_in_two_steps(path, 21, || prober.wait_answers(100, SOON).unwrap());
    applied(&commands, 21);
    // Emptied by one program, filled by another (`> file`, then `cat >> file`).
    File::create(path).unwrap();
    wait_status(&commands, "an empty file named", |s| {
        s["agent"]["file_error"].as_str().is_some_and(|e| e.contains("there is no `vips`"))
    });
    applied(&commands, 21);
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text(22).as_bytes()).unwrap();
    applied(&commands, 22);
    // Another file renamed over it.
    commands.write(&text(23)).unwrap();
    applied(&commands, 23);
    // Renamed to a backup and written anew, as editors do.
    fs::rename(path, path.with_extension("toml~")).unwrap();
    fs::write(path, text(24)).unwrap();
    applied(&commands, 24);
    // Deleted: said, and the old set goes on.
    fs::remove_file(path).unwrap();
    wait_status(&commands, "the missing file named", |s| {
        s["agent"]["file_error"].as_str().is_some_and(|e| e.contains("cannot read"))
    });
    applied(&commands, 24);
    // Created again, the same as it was: that is said, too.
    fs::write(path, text(24)).unwrap();
    wait_status(&commands, "a file that is right again", |s| s["agent"]["file_error"].is_null());
    // A link to another file in its place.
    let elsewhere = path.with_file_name("elsewhere.toml");
    fs::write(&elsewhere, text(25)).unwrap();
    fs::remove_file(path).unwrap();
    symlink(&elsewhere, path).unwrap();
    applied(&commands, 25);
    // SIGHUP, for a change that no event tells: the link's target lies elsewhere.
    let beyond = lab.dir().join("beyond.toml");
    fs::write(&beyond, text(26)).unwrap();
    fs::remove_file(path).unwrap();
    symlink(&beyond, path).unwrap();
    applied(&commands, 26);
    fs::write(&beyond, text(27)).unwrap();
    agent.process().signal(Signal::SIGHUP).unwrap();
    applied(&commands, 27);

    let report = prober.stop().unwrap();
    assert!(report.unanswered.is_empty(), "the address in all files: {:?}", report.silences);
}

#[test]
fn a_mounted_config_map_is_followed() {
    if !root_or_skip("a_mounted_config_map_is_followed") {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let dir = lab.dir().join("config-map");
    let mount = |version: &str, n: u8| {
        fs::create_dir_all(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("static.toml"), text(n)).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    mount("..2026_1", 20);
    symlink("..data/static.toml", dir.join("static.toml")).unwrap();
    let commands = Commands::new(a).unwrap();
    let mut command = commands.command("run");
    command.arg("--static").arg(dir.join("static.toml"));
    let _agent = a.ns().spawn(command).unwrap();
    wait_until("the first version", SOON, || {
        commands.status().ok().filter(|s| !s["agent"].is_null() && states(s).len() == 2)
    })
    .unwrap();
    applied(&commands, 20);
    mount("..2026_2", 21);
    fs::remove_dir_all(dir.join("..2026_1")).unwrap();
    applied(&commands, 21);
}

#[test]
fn a_bad_edit_changes_nothing_and_is_named() {
    if !root_or_skip("a_bad_edit_changes_nothing_and_is_named") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let good = StaticFile::on(&["eth0"]).own(&[v4(10), v6(0x10)]);
    let mut agent = Agent::start(a, &good, &["--fence", "30s"]).unwrap();
    let commands = agent.commands().clone();
    let watch = Watch::start(a, &mut agent);
    let prober = Prober::start(c.ns(), Probing::new(v4(10), Duration::from_millis(2))).unwrap();
    prober.wait_answer_by(a.mac(), SOON).unwrap();
    let cases = [
        ("vips = [\n'192.0.2.10',\n", 2, "unclosed array"),
        ("vips = ['192.0.2.10']\n\nvip = []\n", 3, "unknown key \"vip\""),
        ("vips = [\n{ address = '192.0.2.10', stanby = true },\n]\n", 2, "unknown key \"stanby\""),
        ("vips = [\n'192.0.2.10',\n'192.0.2.256' ]\n", 3, "\"192.0.2.256\" is no IPv4 or IPv6 address"),
        ("vips = [ '192.0.2.10/24' ]\n", 1, "without a prefix length"),
        ("vips = '192.0.2.10'\n", 1, "vips must be an array"),
        ("vips = [ 7 ]\n", 1, "a VIP is an address or"),
        ("vips = [\n{ address = '192.0.2.10', standby = 'yes' } ]\n", 2, "`standby` is true or false"),
        ("interfaces = 'eth0'\nvips = []\n", 1, "interfaces must be an array"),
        ("interfaces = ['eth0']\n", 2, "there is no `vips`"),
        ("", 1, "`vips = []` to announce nothing"),
    ];
    for (text, line, reason) in cases {
        commands.write(text).unwrap();
        let place = format!("static.toml:{line}: ");
        let named = |text: &str| text.contains(&place) && text.contains(reason);
        watch.wait("config_rejected", |e| named(e["reason"].as_str().unwrap()));
        let status = wait_status(&commands, &format!("{text:?} named"), |s| {
            s["agent"]["file_error"].as_str().is_some_and(named)
        });
        assert_eq!(
            states(&status),
            super::agent_support::expected(&[(v4(10), "eth0", "answering"), (v6(0x10), "eth0", "answering")]),
            "after {text:?}"
        );
        let log = agent.process().stderr();
        assert!(log.lines().any(|l| l.contains("ERROR") && named(l)), "{text:?} is not in the log: {log}");
        let shown = commands.output("status", &[]).unwrap().ok().unwrap().stdout;
        let shown = shown.lines().find(|l| l.contains("file not in effect")).unwrap_or_default().to_owned();
        assert!(named(&shown), "{text:?}: {shown:?}");
    }
    // A right one takes effect, and nothing is left of the complaint.
    agent.write(&good.own(&[v4(11)])).unwrap();
    watch.wait("configured", |e| e["vips"] == 3);
    assert_answers(c, "eth0", v4(11), a.mac());
    wait_status(&commands, "no complaint", |s| s["agent"]["file_error"].is_null());
    let report = prober.stop().unwrap();
    assert!(report.unanswered.is_empty(), "{:?}", report.silences);
}
