#!/bin/bash
set -e
{% for line in config.setup %}
{{ line }}
{% endfor %}
{% if work == "sample" %}
exec {{ python }} -m irpo_lib.cluster.job {{ job }} ${SLURM_ARRAY_TASK_ID:-$SLURM_PROCID} {{ config.nodes }}
{% else %}
{# Ranks find each other at the address that Slurm has for the first node, and a port of the job. #}
first=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
address=$(scontrol show node --oneliner "$first" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
port=$((20000 + SLURM_JOB_ID % 20000))
is_host=$([ "$SLURM_PROCID" = 0 ] && echo true || echo false)
exec {{ python }} -m torch.distributed.run --nnodes={{ config.nodes }}
  {#- on each node #} --nproc-per-node={{ config.parallel.processes // config.nodes }}
  {#- who meets #} --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID-$SLURM_STEP_ID"
  {#- and where #} --rdzv-endpoint="$address:$port" --rdzv-conf="is_host=$is_host"
  {#- to do what #} -m irpo_lib.cluster.job {{ job }}
{% endif %}
