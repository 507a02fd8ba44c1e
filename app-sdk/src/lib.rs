//! The application SDK: subscribe to a node-local topic over a Unix socket.
