//! Installs what stages need.

use crate::need::Need;
use crate::stage::Stage;

/// Installs what these stages need and is not here. What cannot be installed is reported; the stages that need it are
/// then skipped.
pub fn install(stages: &[Stage]) {
    println!("==> setup");
    for need in needs(stages) {
        if need.is_here() {
            println!("{}: here", need.name);
            continue;
        }
        println!("{}: {}", need.name, need.install.join(" "));
        match need.install() {
            Ok(()) => println!("{}: installed", need.name),
            Err(why) => println!("{}: could not be installed: {why}", need.name),
        }
    }
}

/// Each need once, in the order of the stages.
fn needs(stages: &[Stage]) -> Vec<Need> {
    let mut out = Vec::new();
    for need in stages.iter().flat_map(|s| &s.needs) {
        if !out.contains(need) {
            out.push(*need);
        }
    }
    out
}
