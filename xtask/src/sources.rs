//! Rules for the files of the project that no other tool checks.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{build::workspace, step::say};

/// Lines of a source file, at most: longer ones hold more than one thing.
const LINES: usize = 400;

/// Directories that hold what belongs to one machine or person.
const PRIVATE: [&str; 5] = ["root", "home", "work", "farm", "Users"];

/// No source file is too long.
///
/// # Errors
///
/// Some are: they have been named. Or this is no git checkout.
pub(crate) fn lengths() -> Result<()> {
    complain(|path, text| {
        let lines = text.lines().count();
        (path.ends_with(".rs") && lines > LINES)
            .then(|| format!("{path}: {lines} lines, {LINES} are allowed"))
    })
}

/// No file names a place that is on one machine only.
///
/// # Errors
///
/// Some do: they have been named. Or this is no git checkout.
pub(crate) fn machine_paths() -> Result<()> {
    complain(|path, text| {
        text.lines().enumerate().find_map(|(index, line)| {
            let found = machine_path(line)?;
            Some(format!("{path}:{}: `{found}` is a path of one machine", index + 1))
        })
    })
}

/// The first absolute path in a line that begins with a private directory.
fn machine_path(line: &str) -> Option<&str> {
    let starts = line.match_indices('/').filter(|(at, _)| {
        // In the middle of a path or address it is no absolute path.
        let before = line[..*at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "._-/:>}*~".contains(c)))
    });
    starts.map(|(at, _)| &line[at..]).find_map(|path| {
        let (first, rest) = path[1..].split_once('/')?;
        let named = rest.starts_with(|c: char| c.is_alphanumeric() || c == '.');
        (PRIVATE.contains(&first) && named).then(|| {
            let end = path.find(|c: char| c.is_whitespace() || "\"'`,;)".contains(c)).unwrap_or(path.len());
            &path[..end]
        })
    })
}

/// Shows what `check` has to say of each file that git knows or would add, by path and text.
fn complain(check: impl Fn(&str, &str) -> Option<String>) -> Result<()> {
    let mut command = Command::new("git");
    command.current_dir(workspace()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = command.output().context("cannot run git")?;
    if !output.status.success() {
        bail!("git does not know the files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut complaints = 0;
    for path in listed.split_terminator('\0') {
        // Neither a removed file nor a picture has lines to look at.
        let Ok(text) = fs::read_to_string(workspace().join(Path::new(path))) else {
            continue;
        };
        if let Some(complaint) = check(path, &text) {
            say(complaint);
            complaints += 1;
        }
    }
    if complaints > 0 {
        bail!("{complaints} files");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::machine_path;

    #[test]
    fn paths_of_machines() {
        let private = ["root", "home"].map(|dir| format!("see \"/{dir}/me/x\", or not"));
        for line in &private {
            assert_eq!(machine_path(line), Some(&line[5..15]), "{line}");
        }
        for fine in
            ["/usr/lib", "https://example.org/home/x", "target/work/x", "~/home/x", "/home/$USER/x", "a / b"]
        {
            assert_eq!(machine_path(fine), None, "{fine}");
        }
    }
}
