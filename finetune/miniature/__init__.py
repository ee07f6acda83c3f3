"""How the embedded miniature is made and measured: its tokenizer, encoders, stages of training, figures."""
