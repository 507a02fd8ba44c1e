//! x
#![expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let from: u64 = args[1].parse().unwrap_or(1);
    let count: u64 = args[2].parse().unwrap_or(1);
    let kind = args.get(3).and_then(|w| fanin_sim::plan::Kind::of_word(w));
    let trace = args.get(4).is_some();
    for seed in from..from + count {
        let plan = fanin_sim::plan::Plan::draw(seed, kind);
        let at = std::time::Instant::now();
        let o = fanin_sim::schedule::run(seed, &plan, trace)?;
        if trace {
            println!("{}", o.trace);
        }
        println!(
            "seed {seed} {} msgs {} {:?}: sim {} s, faults {}, deliveries {}, {:?}",
            plan.kind.word(),
            plan.messages,
            plan.nodes,
            o.simulated_ms / 1000,
            o.faults.iter().sum::<u64>(),
            o.deliveries,
            at.elapsed()
        );
        for v in &o.violations {
            println!("   {v}");
        }
    }
    Ok(())
}
