//! Compiles the contract with `protox`, so that no `protoc` is needed.

/// What `fanin ledger holdings` writes to a file: these get serde's traits with the feature of that name.
const FILED: [&str; 9] = [
    "NodeHoldings",
    "SourceMark",
    "SourceBreak",
    "SeqRange",
    "BatchHolding",
    "AppHolding",
    "HeldMessage",
    "Attempts",
    "DeadLetterRef",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["fanin/v1/topic.proto", "fanin/v1/node.proto"], ["."])?;
    let mut builder = tonic_prost_build::configure().bytes(".fanin.v1");
    if std::env::var_os("CARGO_FEATURE_SERDE").is_some() {
        for message in FILED {
            // As on the wire, what a file lacks has its default and what it has in addition is passed over.
            builder = builder.type_attribute(
                format!(".fanin.v1.{message}"),
                "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]",
            );
        }
    }
    builder.compile_fds(files)?;
    println!("cargo:rerun-if-changed=fanin");
    Ok(())
}
