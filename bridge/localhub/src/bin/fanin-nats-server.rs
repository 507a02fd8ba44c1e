//! Prints the path of a nats-server that fanin can use, and fetches one first if need be.

use std::process::ExitCode;

use fanin_localhub::ServerBinary;

#[expect(clippy::print_stdout, reason = "the path is this program's result")]
fn main() -> ExitCode {
    match ServerBinary::find_or_fetch(None) {
        Ok(binary) => {
            println!("{}", binary.path().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}
