"""The chapter formats: the same training in fp32, tf32, bf16 and fp16."""
