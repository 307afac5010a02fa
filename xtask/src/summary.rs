//! What came of the stages, and whether the whole is good.

use std::fmt::{self, Display, Write};

/// What came of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All its commands succeeded.
    Passed,
    /// One did not: which, and how it ended.
    Failed(String),
    /// It was not run, and why.
    Skipped(String),
}

/// A stage that was run or skipped.
#[derive(Clone, PartialEq, Debug)]
pub struct Done {
    /// The stage's name.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
}

impl Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, more) = match &self.outcome {
            Outcome::Passed => ("passed", String::new()),
            Outcome::Failed(why) => ("FAILED", format!("  {why}")),
            Outcome::Skipped(why) => ("SKIP", format!("  {why}")),
        };
        write!(f, "{:14}{word:8}{:8.1} s{more}", self.name, self.seconds)
    }
}

/// A test that its harness left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignored {
    /// The test's name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What may be skipped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ci {
    /// Skips count as failures.
    pub strict: bool,
    /// But not those of these names.
    pub allowed: Vec<String>,
    /// Backends whose stages may not be skipped anywhere.
    pub required: Vec<String>,
}

impl Ci {
    /// From `CI`, `XTASK_ALLOWED_SKIPS` and `REQUIRE_BACKENDS`.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self { required: names(&variable("REQUIRE_BACKENDS")), ..Self::new(&variable("CI"), &variable("XTASK_ALLOWED_SKIPS")) }
    }

    fn new(ci: &str, allowed: &str) -> Self {
        Self { strict: !matches!(ci, "" | "0" | "false"), allowed: names(allowed), required: Vec::new() }
    }

    fn allows(&self, name: &str) -> bool {
        let is_named = |list: &[String]| list.iter().any(|n| n == name);
        !is_named(&self.required) && (!self.strict || is_named(&self.allowed))
    }
}

/// Names separated by commas.
fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// All stages, and the tests that were left out in them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// In the order in which they ran.
    pub stages: Vec<Done>,
    /// In the order in which they were seen.
    pub ignored: Vec<Ignored>,
}

impl Summary {
    /// Names and reasons of all that was skipped: stages, then tests.
    fn skips(&self) -> impl Iterator<Item = (&str, &str)> {
        let stages = self.stages.iter().filter_map(|d| match &d.outcome {
            Outcome::Skipped(why) => Some((d.name, why.as_str())),
            _ => None,
        });
        stages.chain(self.ignored.iter().map(|i| (i.name.as_str(), i.reason.as_str())))
    }

    /// Nothing failed, and nothing was skipped that may not be.
    pub fn is_good(&self, ci: &Ci) -> bool {
        let failed = self.stages.iter().any(|d| matches!(d.outcome, Outcome::Failed(_)));
        !failed && self.skips().all(|(name, _)| ci.allows(name))
    }

    /// The seconds of each stage, then what was skipped and what failed, then one line of counts of stages.
    pub fn text(&self, ci: &Ci) -> String {
        let mut out = String::from("\n==> summary\n");
        for done in &self.stages {
            let _ = writeln!(out, "{done}");
        }
        let _ = writeln!(out, "{:22}{:8.1} s", "all", self.stages.iter().map(|d| d.seconds).sum::<f64>());
        for (name, why) in self.skips() {
            let mark = if ci.allows(name) { "" } else { "  (not allowed here: see XTASK_ALLOWED_SKIPS and REQUIRE_BACKENDS)" };
            let _ = writeln!(out, "SKIP {name}: {why}{mark}");
        }
        for done in &self.stages {
            if let Outcome::Failed(why) = &done.outcome {
                let _ = writeln!(out, "FAILED {}: {why}", done.name);
            }
        }
        let count = |is: fn(&Outcome) -> bool| self.stages.iter().filter(|d| is(&d.outcome)).count();
        let passed = count(|o| *o == Outcome::Passed);
        let failed = count(|o| matches!(o, Outcome::Failed(_)));
        let _ = writeln!(out, "{passed} passed, {failed} failed, {} skipped", self.stages.len() - passed - failed);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(outcomes: &[(&'static str, Outcome)]) -> Summary {
        let done = |(name, outcome): &(&'static str, Outcome)| Done { name, outcome: outcome.clone(), seconds: 1.0 };
        Summary { stages: outcomes.iter().map(done).collect(), ignored: Vec::new() }
    }

    #[test]
    fn a_failure_is_never_good() {
        let s = summary(&[("a", Outcome::Passed), ("b", Outcome::Failed("why".into()))]);
        assert!(!s.is_good(&Ci::default()) && !s.is_good(&Ci::new("true", "b")));
        assert!(s.text(&Ci::default()).contains("\nFAILED b: why\n"));
    }

    #[test]
    fn a_skip_fails_in_ci_alone_and_only_where_it_is_not_named() {
        let s = summary(&[("a", Outcome::Passed), ("b", Outcome::Skipped("no b".into()))]);
        for (ci, allowed, good) in [
            ("", "", true),
            ("false", "", true),
            ("true", "", false),
            ("true", "bb, a", false),
            ("true", "x , b", true),
            ("1", "", false),
        ] {
            assert_eq!(s.is_good(&Ci::new(ci, allowed)), good, "CI={ci:?} {allowed:?}");
        }
        assert!(s.text(&Ci::new("true", "")).contains("SKIP b: no b  (not allowed"));
        assert!(s.text(&Ci::new("true", "b")).contains("SKIP b: no b\n"));
    }

    #[test]
    fn a_required_backend_is_never_skipped() {
        let s = summary(&[("wgpu", Outcome::Skipped("no driver".into()))]);
        let required = |ci: Ci| Ci { required: names("cpu, wgpu"), ..ci };
        assert!(s.is_good(&Ci::default()) && s.is_good(&Ci::new("true", "wgpu")));
        assert!(!s.is_good(&required(Ci::default())) && !s.is_good(&required(Ci::new("true", "wgpu"))));
    }

    #[test]
    fn an_ignored_test_is_a_skip() {
        let mut s = summary(&[("a", Outcome::Passed)]);
        s.ignored.push(Ignored { name: "x::y".into(), reason: "slow".into() });
        assert!(s.is_good(&Ci::new("", "")) && !s.is_good(&Ci::new("true", "")) && s.is_good(&Ci::new("true", "x::y")));
        assert!(s.text(&Ci::default()).contains("SKIP x::y: slow\n"));
    }

    #[test]
    fn the_last_line_counts_stages() {
        let mut s = summary(&[("a", Outcome::Passed), ("b", Outcome::Skipped("no b".into())), ("c", Outcome::Passed)]);
        s.ignored.push(Ignored { name: "x::y".into(), reason: "slow".into() });
        assert_eq!(s.text(&Ci::default()).lines().last(), Some("2 passed, 0 failed, 1 skipped"));
    }
}
