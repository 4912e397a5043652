//! Tests and files that documents point to are there.

use super::{code, documents, read, root};

/// `path/of/a/file.rs::function`
fn reference(text: &str) -> Option<(&str, &str)> {
    let (file, function) = text.split_once("::")?;
    let is_name = !function.is_empty() && function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (file.ends_with(".rs") && is_name).then_some((file, function))
}

#[test]
fn every_claim_has_its_test() {
    let mut claims = 0;
    for (path, text) in documents() {
        for (file, function) in text.lines().flat_map(code).filter_map(reference) {
            let source = read(file);
            assert!(source.contains(&format!("fn {function}(")), "{path}: {file} has no {function}");
            claims += usize::from(path == "SECURITY.md");
        }
    }
    assert!(claims > 40, "SECURITY.md points to {claims} tests");
}

#[test]
fn what_is_named_is_a_test() {
    // Scenarios are run by a test of their file, by name.
    let is_test = |source: &str, function: &str| {
        let before = source.split(&format!("fn {function}(")).next().unwrap();
        let attributes = before.rsplit("\n\n").next().unwrap();
        attributes.contains("#[test]") || attributes.contains("#[tokio::test]")
    };
    for (file, function) in read("SECURITY.md").lines().flat_map(code).filter_map(reference) {
        let source = read(file);
        let played = source.contains("#[test]") && source.contains(&format!(", {function})"));
        assert!(is_test(&source, function) || played, "{file}::{function} is no test");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        let dir = root().join(&path);
        let dir = dir.parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            assert!(dir.join(file).exists(), "{path}: {target} is not there");
            links += 1;
        }
    }
    assert!(links > 40, "{links} links");
}

#[test]
fn references_are_told_from_other_code() {
    assert_eq!(reference("a/b.rs::c_d"), Some(("a/b.rs", "c_d")));
    for other in ["a/b.rs", "std::fs", "a.rs::", "a.rs::b c"] {
        assert_eq!(reference(other), None, "{other}");
    }
}
