//! Test harness: real servers, real processes, a cuttable proxy, an offline checker.
