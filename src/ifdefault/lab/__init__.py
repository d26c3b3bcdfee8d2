"""The lab: a multihomed host, its providers and the Internet in network namespaces, with faults."""
