//! The supported families by name.

/// The supported decoder families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Gemma 3, the text model: windows in most blocks, norms before and after, GELU.
    Gemma3,
    /// Llama 2/3.x and models of its shape.
    Llama,
    /// Mistral: Llama's shape, where a block may attend through a window.
    Mistral,
    /// Qwen2 and Qwen2.5: bias on the query, key and value projections.
    Qwen2,
    /// Qwen3 (dense): RMS norm on each query and key head.
    Qwen3,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Qwen2, Self::Qwen3, Self::Llama, Self::Mistral, Self::Gemma3];

    /// `model_type` and `architectures[0]` as transformers spells them.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Mistral => ("mistral", "MistralForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        }
    }

    /// `model_type` as transformers spells it.
    pub fn model_type(self) -> &'static str {
        self.names().0
    }

    /// `architectures[0]` as transformers spells it.
    pub fn architecture(self) -> &'static str {
        self.names().1
    }

    /// Whether `max_position_embeddings` counts positions before the scaling of rotary frequencies stretches them.
    pub(super) fn counts_before_scaling(self) -> bool {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => true,
            Self::Gemma3 => false,
        }
    }
}
