"""Any OpenAI-compatible server as an engine: vLLM, SGLang, llama.cpp, ``transformers serve``, or somebody's API."""
