"""The lab: the whole multihomed world in network namespaces, with faults on demand."""
