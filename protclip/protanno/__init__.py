"""ProtAnno: from UniProtKB entries to protein–text pairs."""
