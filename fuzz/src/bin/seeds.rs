//! Writes what each target begins with below a directory: `seeds DIR`.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use responder_fuzz::TARGETS;

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::FAILURE;
    };
    match write(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &std::path::Path) -> io::Result<()> {
    for target in TARGETS {
        let place = dir.join(target.name);
        fs::create_dir_all(&place)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(place.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
