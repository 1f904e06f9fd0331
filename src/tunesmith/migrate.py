"""The names that tutorials and other systems use, and what to do instead here."""


def table(text: str) -> dict[str, str]:
    """Lines of `names: sentence`; several names that share a sentence are separated by spaces."""
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        names, _, sentence = line.partition(": ")
        found |= dict.fromkeys(names.split(), sentence)
    return found


RENAMED = (
    # the run, its model and its data, as LLaMA-Factory, axolotl, TRL and oumi call them
    table("""
    model_name_or_path base_model model_name model_id: is called model.path here
    dtype torch_dtype pure_bf16: is called model.precision here (fp32, bf16 or fp16)
    trust_remote_code: is always off here; code that comes with a model is not run
    model_revision revision_of_model: is not a key here; download that revision and name its folder in model.path
    device_map offload_folder: is not a key here; see model.max_memory, the gigabytes of weights that stay
    use_unsloth use_unsloth_gc: is not supported; model.liger and model.attn choose kernels here
    activation_offloading: is called train.activation_offload here (disk or cpu)
    flash_attn attn_implementation flash_attention: is called model.attn here
    shift_attn: is called model.attn here (shifted)
    xformers_attention sdp_attention: is chosen by transformers here; leave it out
    rope_scaling: is called model.rope_scaling here (linear, dynamic, yarn or llama3)
    rope_theta: is the model's own here; set it in its config.json
    quantization_bit load_in_4bit load_in_8bit: is called model.precision here (nf4, llm_int8, hqq and others)
    quantization_method quantization_type: is called model.precision here (nf4, llm_int8, hqq and others)
    bnb_4bit_quant_type: is called model.precision here (nf4 or fp4)
    bnb_4bit_compute_dtype: is called model.precision.compute_dtype here
    double_quantization use_bnb_nested_quant bnb_4bit_use_double_quant: is called model.precision.double_quant here
    output_dir: is called output here
    overwrite_output_dir: is not needed here; a folder that holds something is never written over
    dataset dataset_name datasets train_file: is called data.path here
    dataset_dir: is not a key here; name the file or folder in data.path
    dataset_config dataset_config_name: is called data.subset here
    dataset_split split: is called data.split here
    max_samples: is called data.max_samples here (eval.max_samples for the rows that are measured)
    eval_dataset validation_file test_datasets: is called data.eval_path here
    val_size val_set_size test_size: is called data.eval_size here (a share of the rows)
    cutoff_len sequence_len max_seq_length max_seq_len model_max_length: is called data.max_length here
    template chat_template chat_template_path: is not needed here; the tokenizer's own chat template is used
    neat_packing sample_packing: is called train.packing here; without it too, batches hold no padding
    packing_strategy: is not a key here; train.packing fills rows up, the longest examples first
    max_tokens batch_max_tokens: is called train.max_tokens_per_batch here
    pad_to_sequence_len: is not needed here; batches are packed without padding where the model allows it
    train_on_prompt train_on_inputs: is not supported yet; answers alone are learnt
    completion_only_loss assistant_only_loss: is not supported yet; answers alone are learnt
    mask_history: is not supported yet; give a turn `train: false` in the data
    roles_to_train train_on_eos: is not a key here; what the assistant says is learnt, its end included
    default_system default_system_message: is not supported yet; put the system message into the data
    enable_thinking chat_template_kwargs: is not supported yet; leave it out
    preprocessing_num_workers dataset_num_proc overwrite_cache: is not needed here
    tokenized_path dataset_prepared_path: is not needed here
    streaming buffer_size mix_strategy interleave_probs: is not supported yet; leave it out
    shuffle_merged_datasets: is not needed here; the order is drawn by train.seed
    dataset_text_field field_messages field_instruction: is an option of data.format here, such as data.format.text
    """)
    # the method
    | table("""
    finetuning_type adapter tuner_type use_peft peft_type: is called method here (full, freeze, lora and others)
    lora_rank lora_r rank: is called method.r here
    lora peft_config lora_config: is called method here, its options beside its name: method: {name: lora, r: 8}
    alpha: is called method.lora_alpha here
    lora_target lora_target_modules target: is called method.target_modules here
    lora_target_linear: is called method.target_modules here (all-linear)
    additional_target lora_modules_to_save: is called method.modules_to_save here
    peft_use_dora: is called method.use_dora here
    peft_use_rslora: is called method.use_rslora here
    pissa_init peft_init_lora_weights: is called method.init_lora_weights here (default, pissa, olora and others)
    pissa_iter: is called method.pissa_niter here, with method.init_lora_weights=pissa
    layers_to_transform layers_pattern: is not a key here; name the layers by a pattern in method.target_modules
    exclude_modules: is not supported yet; name what learns in method.target_modules
    lora_bias: is called method.bias here
    adapter_name_or_path lora_model_dir: is called method.adapter here to go on from it, model.adapters to build on it
    create_new_adapter: is not a key here; name the old adapter in model.adapters, and train a new one
    mixture_of_depths: is called method here (mixture_of_depths); a saved one is named in model.path
    use_llama_pro: is called method here; method=llama_pro with method.num_expand
    freeze_trainable_layers unfrozen_parameters: is called method.num_layers here, with method=freeze
    freeze_trainable_modules freeze_extra_modules: is called method.modules here, with method=freeze
    """)
    # the objective
    | table("""
    stage task_type rl loss_type: is called objective here (sft, dpo, kto, orpo, classify and so on)
    pref_beta beta rl_beta: is called objective.beta here
    pref_loss: is called objective.loss_type here, with objective=dpo; orpo and simpo are objectives
    pref_ftx rpo_alpha: is called objective.loss_type here, a list with sft in it, and objective.loss_weights
    dpo_label_smoothing: is called objective.label_smoothing here
    pref_bco_weight: is called objective.loss_type here, a list with bco_pair in it, and objective.loss_weights
    kto_chosen_weight: is called objective.desirable_weight here
    kto_rejected_weight: is called objective.undesirable_weight here
    ref_model: is called objective.reference here
    num_labels problem_type: is told from the labels in the data, with objective=classify
    """)
    # training, where the name has changed
    | table("""
    lr learning-rate: is called train.learning_rate here
    lr_scheduler learning_rate_scheduler scheduler: is called train.lr_scheduler_type here
    warmup_ratio: is called train.warmup_steps here (a value below 1 is a share of all steps)
    warmup: is called train.warmup_steps here
    micro_batch_size batch_size: is called train.per_device_train_batch_size here
    per_gpu_train_batch_size per_device_batch_size: is called train.per_device_train_batch_size here
    grad_accum accumulation_steps gradient_accumulation: is called train.gradient_accumulation_steps here
    num_epochs epochs n_epochs: is called train.num_train_epochs here
    optimizer: is called train.optim here
    adafactor: is called train.optim here (adafactor)
    use_galore use_apollo use_badam use_muon use_adam_mini: is called train.optim here (galore_adamw, badam and so on)
    galore_rank apollo_rank: is called train.optim.rank here
    galore_update_interval apollo_update_interval: is called train.optim.update_proj_gap here
    galore_scale apollo_scale: is called train.optim.scale here
    galore_target apollo_target optim_target_modules: is not needed here; every matrix within the model is projected
    galore_layerwise apollo_layerwise: is called train.optimizer_in_backward here
    apollo_scale_type: is called train.optim.scale_type here
    badam_switch_interval: is called train.optim.switch_block_every here
    badam_mode: is called train.optim here (badam or badam_ratio)
    badam_update_ratio: is called train.optim.update_ratio here
    badam_mask_mode: is called train.optim.mask_mode here
    badam_start_block badam_verbose: is not needed here; see train.optim.switch_mode
    badam_switch_mode: is called train.optim.switch_mode here
    optim_args: is set beside the name here: train.optim: {name: galore_adamw, rank: 64}
    lr_scheduler_kwargs: is set beside the name here: train.lr_scheduler_type: {name: polynomial, power: 2}
    cosine_min_lr_ratio: is called train.lr_scheduler_type.min_lr_rate here, with cosine_with_min_lr
    noisy_embedding_alpha: is called train.neftune_noise_alpha here
    train.lr_scheduler_type=wsd: is called warmup_stable_decay here
    train.lr_scheduler_type=reduce_lr_on_plateau: is not offered: rates follow from a step's number alone; take cosine
    train.lr_scheduler_type=greedy: is not offered: rates follow from a step's number alone; take cosine
    train.optim=adamw train.optim=adamw_hf train.optim=adamw_torch_xla: is called adamw_torch here
    train.optim=adamw_torch_npu_fused train.optim=adamw_apex_fused: is called adamw_torch_fused here
    train.optim=lomo: is sgd with train.optimizer_in_backward=true here; lomo-optim needs a GPU
    train.optim=adalomo: is not offered, as lomo-optim has been given up; take adafactor, which remembers as little
    train.optim=galore_adamw_layerwise: is galore_adamw with train.optimizer_in_backward=true here
    train.optim=galore_adafactor_layerwise: is galore_adafactor with train.optimizer_in_backward=true here
    train.optim=apollo_adamw_layerwise: is apollo_adamw with train.optimizer_in_backward=true here
    train.optim=galore_adamw_8bit: is not offered: galore-torch needs a GPU for it; take q_galore_adamw
    train.optim=galore_adamw_8bit_layerwise: is not offered: galore-torch needs a GPU for it; take q_galore_adamw
    train.optim=adamw_torch_4bit: is not offered: torchao compiles it anew for each weight; take adamw_bnb_8bit
    train.optim=adamw_torch_8bit: is not offered: torchao compiles it anew for each weight; take adamw_bnb_8bit
    train.optim=adamw_anyprecision: is not offered: torchdistx has been given up; take adamw_torch
    train.optim=grokadamw: is not offered: it made losses rise when it was tried; take adamw_torch
    train.optim=stable_adamw: is not offered: its package needs a GPU's compiler; take adamw_torch
    fp16_backend half_precision_backend fp16_opt_level: is not needed here; train.fp16 uses torch's own
    mixed_precision: is called train.bf16 or train.fp16 here
    gradient_clipping grad_clip max_norm: is called train.max_grad_norm here
    evaluation_strategy: is called train.eval_strategy here
    evals_per_epoch saves_per_epoch: is not a key here; use train.eval_steps and train.save_steps
    group_by_length length_column_name: is called train.train_sampling_strategy here (group_by_length)
    activation_checkpointing disable_gradient_checkpointing: is called train.gradient_checkpointing here
    use_gradient_checkpointing: is called train.gradient_checkpointing here
    activation_checkpointing_kwargs: is not needed here; set train.gradient_checkpointing
    gradient_checkpointing_kwargs: is not needed here; set train.gradient_checkpointing
    per_device_eval_batch_size per_gpu_eval_batch_size eval_batch_size: is called eval.batch_size here
    max_new_tokens generation_max_length: is called eval.max_new_tokens here
    predict_with_generate: is called eval.task here (exact_match)
    do_eval eval_on_start: is called eval.enabled here; a run is measured before and after
    do_predict prediction_loss_only: is called eval.enabled here; a run is measured before and after
    do_train: is not needed here; `tunesmith train` trains
    label_smoothing_factor: is called objective.label_smoothing here, with objective=classify
    data_seed: is not a key here; train.seed decides the order of the data too
    plot_loss: is not needed here; every run has loss.png and report.html
    run_name wandb_name: is not a key here; the run is named by its folder, output
    resume_from_checkpoint auto_resume_from_checkpoints: is an option here: tunesmith train --resume DIR
    logging_dir: is not a key here; TensorBoard's files are in the run's folder, under tensorboard
    use_swanlab use_tensorboard use_wandb use_mlflow: is called train.report_to here, a list such as [swanlab]
    swanlab_project wandb_project project: is an option of the tracker: train.report_to: [{name: wandb, project: mine}]
    swanlab_mode wandb_run_id: is set in the tracker's own environment variables
    """)
    # training, where there is nothing to set
    | table("""
    save_safetensors: is always so here
    save_only_model: is not supported; checkpoints hold what --resume needs, the result stands beside them
    save_on_each_node: is not supported; checkpoints hold what --resume needs, the result stands beside them
    swanlab_api_key: is never read from a recipe; log in with the tracker's own command
    use_mps_device use_ipex jit_mode_eval tpu_num_cores: is not a key here; the device is found
    past_index: is not a key here; leave it out
    include_tokens_per_second: is always so here
    include_inputs_for_metrics: is not needed here
    dispatch_batches split_batches: is not needed here; examples are ready before the first step
    no_cuda use_cpu: is not a key here; hide the GPUs with CUDA_VISIBLE_DEVICES= (empty)
    average_tokens_across_devices include_num_input_tokens_seen: is always so here
    logging_strategy logging_first_step: is not a key here; use train.logging_steps
    logging_nan_inf_filter: is called train.on_nan here (stop or skip)
    log_level log_level_replica log_on_each_node disable_tqdm: is not a key here; progress goes to stderr
    full_determinism: is always so here on a CPU
    ignore_data_skip: is not needed here; a resumed run sees what it would have seen
    restore_callback_states_from_checkpoint: is not needed here; a resumed run sees what it would have seen
    remove_unused_columns label_names: is not needed here; a format names the columns that it reads
    dataloader_num_workers dataloader_pin_memory: is not needed here
    dataloader_persistent_workers dataloader_prefetch_factor: is not needed here
    dataloader_multiprocessing_context: is not needed here; examples are ready before the first step
    dataloader_in_order: is not needed here; examples are ready before the first step
    dataloader_drop_last: is not supported; the last, smaller batch counts as its tokens do
    skip_memory_metrics: is not needed here; the peak memory is always reported
    eval_do_concat_batches eval_use_gather_object eval_accumulation_steps batch_eval_metrics: is not needed here
    include_for_metrics bf16_full_eval fp16_full_eval: is not needed here
    local_rank debug: is not a key here; leave it out
    use_cache: is not a key here; training never caches, answering always does
    """)
    # training, where it is not there yet
    | table("""
    load_best_model_at_end metric_for_best_model: is not supported yet; compare runs instead
    greater_is_better early_stopping_patience: is not supported yet; compare runs instead
    eval_delay auto_find_batch_size torch_empty_cache_steps: is not supported yet; leave it out
    tf32 torch_compile torch_compile_backend: is not supported yet; leave it out
    torch_compile_mode enable_jit_checkpoint: is not supported yet; leave it out
    use_liger_kernel liger_kernel_config enable_liger_kernel: is called model.liger here (auto, on or off)
    push_to_hub hub_token: is not supported yet; upload the run's adapter or model folder with `hf upload`
    hub_private_repo hub_model_id: is not supported yet; upload the run's adapter or model folder with `hf upload`
    hub_strategy hub_always_push: is not supported yet; upload the run's adapter or model folder with `hf upload`
    push_to_hub_model_id: is not supported yet; upload the run's adapter or model folder with `hf upload`
    hub_revision hf_hub_token: is not supported yet; upload the run's adapter or model folder with `hf upload`
    trackio_space_id trackio_bucket_id trackio_static_space_id: is set in the tracker's own environment variables
    accelerator_config parallelism_config fsdp fsdp_config deepspeed: is not supported yet; runs use one process
    sharded_ddp ray_scope: is not supported yet; runs use one process
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers: is not supported yet; runs use one process
    ddp_static_graph ddp_backend ddp_timeout: is not supported yet; runs use one process
    sortish_sampler: is called train.train_sampling_strategy here (group_by_length)
    generation_num_beams generation_config: is not supported yet; answers are written greedily
    export_dir export_size export_device: is not supported yet; a run's adapter or model folder loads without us
    infer_backend: is not a key of training; leave it out
    special_tokens plugins: is not supported yet; leave it out
    """)
)
