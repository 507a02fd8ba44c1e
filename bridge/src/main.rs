//! The `fanin` binary: parses, dispatches, and ends with the right exit code.

use std::process::ExitCode;

use clap::Parser as _;
use fanin_bridge::cli::Cli;
use fanin_bridge::cli::exit::Exit;
use fanin_bridge::cli::failure::Failure;
use fanin_bridge::telemetry::codes;

/// On a small machine one busy worker must not hold up the others' timers.
const WORKERS_MIN: usize = 2;

fn main() -> ExitCode {
    // Prints help or the mistake, and ends with 0 or 2.
    let cli = Cli::parse();
    let as_json = cli.command.wants_json();
    let workers =
        std::thread::available_parallelism().map_or(WORKERS_MIN, |cpus| cpus.get().max(WORKERS_MIN));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(cli.command.execute());
            // A read of standard input that nobody needs any more would hold the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => {
            let text = "cannot start the worker threads";
            Err(Failure::new(Exit::TryLater, codes::RUNTIME_FAILED, text).because(error))
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell(as_json);
            failure.exit().into()
        }
    }
}
