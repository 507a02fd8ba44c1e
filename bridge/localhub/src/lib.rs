//! Finds, fetches and runs a local nats-server for the demo, the benchmarks and the tests.
