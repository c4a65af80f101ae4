"""The demo: two data owners, a scientist and real private data, told step by step, each step checked."""
