//! Damage of all kinds to a journal of several segments: it is told, or it changed nothing, or it took what was never
//! proven durable; what is read was written.
