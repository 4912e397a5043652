//! The list of what is in the image, as CycloneDX 1.5: scanners for vulnerabilities find it there.
//!
//! Tools that make such lists put the time and a random number into them; this one is the same each time.

use anyhow::Result;
use serde_json::{Value, json};

use super::packages::{Linked, Packages};

/// The list.
///
/// # Errors
///
/// It cannot be written as JSON.
pub(super) fn json(packages: &Packages) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let image = json!({
        "type": "application",
        "bom-ref": "l2-responder",
        "name": "l2-responder",
        "version": version,
        "licenses": [{ "expression": "Apache-2.0 OR MIT" }],
    });
    let components: Vec<Value> = packages.0.values().map(component).collect();
    let uses = |keys: Vec<&String>| -> Vec<String> { keys.into_iter().map(|key| reference(key)).collect() };
    let mut dependencies =
        vec![json!({ "ref": "l2-responder", "dependsOn": uses(packages.origins().collect()) })];
    dependencies.extend(packages.0.iter().map(
        |(key, linked)| json!({ "ref": reference(key), "dependsOn": uses(linked.uses.iter().collect()) }),
    ));
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": image },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&bom)? + "\n")
}

fn component(linked: &Linked) -> Value {
    let package = &linked.package;
    let key = format!("{} {}", package.name, package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&key),
        "name": package.name.as_str(),
        "version": package.version.to_string(),
        "purl": reference(&key),
    });
    if let Some(licence) = &package.license {
        // The form of before SPDX.
        let expression = licence.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(checksum) = &linked.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// A package's URL, from `name version`. Versions may have a `+`, which is no letter of an URL.
fn reference(key: &str) -> String {
    format!("pkg:cargo/{}", key.replace(' ', "@").replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::image::program::Arch;

    #[test]
    fn each_crate_is_there_once_and_every_reference_leads_to_one() {
        let packages = Packages::linked(Arch::X86_64).unwrap();
        let bom: Value = serde_json::from_str(&json(&packages).unwrap()).unwrap();
        let components = bom["components"].as_array().unwrap();
        let known: BTreeSet<_> =
            components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(known.len(), packages.0.len());
        for dependency in bom["dependencies"].as_array().unwrap() {
            for used in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(used.as_str().unwrap()), "{used}");
            }
        }
        for component in components {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            assert!(!component["purl"].as_str().unwrap().contains([' ', '+']), "{component}");
        }
    }
}
