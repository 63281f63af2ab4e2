//! The program: everything is in the library.

fn main() -> std::process::ExitCode {
    dvs_stream::cli::main()
}
