//! Text as a configuration: parsed, checked, written again, and tried.
#![cfg_attr(fuzzing, no_main)]

use blockllm::{Config, DType, Optimizer, Reference};
use blockllm_fuzz::{fixture, restore};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(init: blockllm_fuzz::write_seeds("config", seeds()), |data: &[u8]| run(data));

#[cfg(not(fuzzing))]
fn main() {
    if std::env::args_os().len() == 1 {
        seeds().iter().for_each(|seed| run(seed));
    }
    blockllm_fuzz::replay(run);
}

/// The configurations of all fixtures.
fn seeds() -> Vec<Vec<u8>> {
    let text = |f: &fixture::Fixture| toml::to_string(&f.config).expect("a configuration can be written").into_bytes();
    fixture::all().iter().map(text).chain([Vec::new()]).collect()
}

/// No panic; what is taken is the same when it is written and read again; an optimizer of it trains or says why not.
fn run(bytes: &[u8]) {
    let Ok(config) = std::str::from_utf8(bytes).map_err(drop).and_then(|t| toml::from_str::<Config>(t).map_err(drop)) else {
        return;
    };
    let valid = [DType::F32, DType::F64].map(|compute| config.validate(compute).is_ok());
    // What is valid holds no NaN, which would not be equal to itself. TOML has no words above i64's.
    if let (true, Ok(text)) = (valid[0], toml::to_string(&config)) {
        assert_eq!(toml::from_str::<Config>(&text).as_ref(), Ok(&config), "written as {text}");
    }
    for fixture in fixture::all().iter().take(2) {
        if let Ok(mut o) = Optimizer::new(Reference::default(), &fixture.specs, config.clone()) {
            restore::go_on(fixture, &mut o, &[]);
        }
    }
}
