//! kimage: builds boot images. See [`images`].

use std::process::ExitCode;

use clap::Parser;
use images::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kimage: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}
