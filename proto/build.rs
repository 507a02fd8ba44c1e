//! Compiles the contract with `protox`, so that no `protoc` is needed.
use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["fanin/v1/topic.proto", "fanin/v1/node.proto"], ["."])?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(
        std::path::Path::new(&out).join("descriptor.bin"),
        files.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".fanin.v1")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=fanin");
    Ok(())
}
