//! The knode program: parse, run, print the error once.

use std::process::ExitCode;

fn main() -> ExitCode {
    knode::cli::main()
}
