//! The program: everything is in the library.

fn main() {
    std::process::exit(pbx_config::cli::main(std::env::args_os()));
}
