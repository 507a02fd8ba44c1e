//! Compiles the contract with `protox`, so that no `protoc` is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["fanin/v1/topic.proto", "fanin/v1/node.proto"], ["."])?;
    tonic_prost_build::configure()
        .bytes(".fanin.v1")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=fanin");
    Ok(())
}
