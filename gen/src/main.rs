//! kgen: one settings file in, one user-data document per machine out.

fn main() -> std::process::ExitCode {
    kgen::cli::main()
}
