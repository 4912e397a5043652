//! Of the capabilities that the DaemonSet gives the agent, each is needed, and no other is; what is missing is named.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{fs, path::Path, process::Command, time::Duration};

use responder_lab::{
    Commands, Lab, NetNs, Output, Prober, Probing, StaticFile, root_or_skip, tools_or_skip, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const VIP: [u8; 4] = [192, 0, 2, 10];

/// Those in `capabilities: add:` of a manifest in `deploy`, as `setpriv` calls them.
fn granted(manifest: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(manifest);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (_, rest) = text.split_once("capabilities:").unwrap();
    let (_, rest) = rest.split_once("add:").unwrap();
    // `[A, B]` on one line, or a list of lines `- A # why`.
    let names: Vec<&str> = match rest.trim_start_matches(' ').strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap().split(',').collect(),
        None => rest.lines().skip(1).map_while(|line| line.trim().strip_prefix("- ")).collect(),
    };
    names.iter().map(|name| name.split('#').next().unwrap().trim().to_lowercase()).collect()
}

/// A command with these capabilities alone, as in a container: of root's, without the right to gain others.
fn with(capabilities: &[String], command: &Command) -> Command {
    let set = capabilities.iter().fold("-all".to_owned(), |set, name| set + ",+" + name);
    let mut limited = Command::new("setpriv");
    limited.arg(format!("--bounding-set={set}")).args(["--inh-caps=-all", "--no-new-privs"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    limited
}

fn finish(ns: &NetNs, command: Command) -> Output {
    ns.spawn(command).unwrap().finish(SOON).unwrap()
}

/// Its name, and of no other.
fn assert_names(text: &str, missing: &str, all: &[String]) {
    for name in all {
        let is_named = text.contains(&format!("CAP_{}", name.to_uppercase()));
        assert_eq!(
            is_named,
            name == missing,
            "CAP_{} of {all:?} without {missing}: {text}",
            name.to_uppercase()
        );
    }
}

#[test]
fn each_capability_of_the_daemonset_is_needed() {
    let test = "each_capability_of_the_daemonset_is_needed";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let all = granted("base/daemonset.yaml");
    assert_eq!(all, ["bpf", "net_admin", "net_raw", "perfmon"]);
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    let a = lab.node("a");
    let commands = Commands::new(a).unwrap();
    commands.write(&StaticFile::on(&["eth0"]).own(&[VIP.into()]).text()).unwrap();
    let mut run = commands.command("run");
    run.arg("--static").arg(commands.file());

    for missing in &all {
        let others: Vec<String> = all.iter().filter(|name| *name != missing).cloned().collect();
        let output = finish(a.ns(), with(&others, &run));
        assert_eq!(output.code(), Some(4), "without {missing}: {}", output.stderr);
        assert_names(&output.stderr, missing, &all);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), None, "without {missing}, a program is left");
        assert!(!a.bpffs().exists(), "without {missing}, pins are left");

        let mut check = commands.command("check");
        check.args(["--json", "eth0"]);
        let output = finish(a.ns(), with(&others, &check));
        assert_eq!(output.code(), Some(4), "without {missing}: {}", output.stdout);
        let findings: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let about = |finding: &&serde_json::Value| finding["about"] == "capabilities";
        let finding = findings.as_array().unwrap().iter().find(about).unwrap();
        assert_eq!(finding["verdict"], "bad");
        assert_names(finding["text"].as_str().unwrap(), missing, &all);
    }

    let mut agent = a.ns().spawn(with(&all, &run)).unwrap();
    agent.wait_line(SOON, |line| line.contains("ready")).unwrap();
    let prober =
        Prober::start(lab.node("c").ns(), Probing::new(VIP.into(), Duration::from_millis(5))).unwrap();
    prober.wait_answer_by(a.mac(), SOON).unwrap();
    assert!(!agent.stderr().contains("WARN"), "{}", agent.stderr());
    agent.kill().unwrap();

    // What it has left goes with those of the other DaemonSet.
    let remover = granted("uninstall/daemonset.yaml");
    let output = finish(a.ns(), with(&remover, &commands.command("detach")));
    assert_eq!(output.code(), Some(0), "{remover:?}: {}", output.stderr);
    assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), None, "a program is left");
    assert!(!a.bpffs().exists(), "pins are left");
}
