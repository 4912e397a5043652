//! What is to run.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

use crate::machine;

/// In the directory of this machine's kernel.
const PLAN: &str = "plan";
const ENVIRONMENT: &str = "/vm/environment";

/// A program to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Names it in the report.
    pub(crate) name: String,
    /// How long it may run.
    pub(crate) limit: Duration,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// All steps, in order.
pub(crate) fn steps() -> Result<Vec<Step>> {
    let path = machine::dir()?.join(PLAN);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().map(step).collect()
}

/// From a line: name, seconds, program and arguments, with tabs between them.
fn step(line: &str) -> Result<Step> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut next = || fields.next().with_context(|| format!("{PLAN}: {line:?} is too short"));
    let (name, limit, program) = (next()?, next()?, next()?);
    let limit = limit.parse().with_context(|| format!("{PLAN}: {limit:?} is no number of seconds"))?;
    Ok(Step { name, limit: Duration::from_secs(limit), program, arguments: fields.collect() })
}

/// Variables for all programs.
pub(crate) fn environment() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(ENVIRONMENT).with_context(|| format!("cannot read {ENVIRONMENT}"))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let wanted = Step {
            name: "random".into(),
            limit: Duration::from_secs(60),
            program: "/vm/random".into(),
            arguments: vec!["--exact".into(), "a b".into()],
        };
        assert_eq!(step("random\t60\t/vm/random\t--exact\ta b").unwrap(), wanted);
        assert!(step("random\t60").is_err());
        assert!(step("random\tx\t/vm/random").is_err());
    }
}
