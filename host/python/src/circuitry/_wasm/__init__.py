"""The component in wasmtime: values, calls, instances. Nothing outside of this folder knows wasmtime."""
