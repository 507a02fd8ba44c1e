//! The protocol and the delivery rules of fanin, without I/O, clock or threads.
