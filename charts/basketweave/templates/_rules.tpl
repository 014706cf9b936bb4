{{- /* Rules between values that a schema cannot say; each fails with one sentence. */ -}}
{{- define "basketweave.rules" -}}
{{- with .Values -}}
{{- if not .apiKeys.existingSecret -}}
{{- fail "apiKeys.existingSecret is empty: the service listens beyond its pod only with API keys. Create one: kubectl create secret generic basketweave-api-keys --from-literal=api-keys='[\"KEY\"]', and set apiKeys.existingSecret=basketweave-api-keys." -}}
{{- end -}}
{{- if and .storage.uri .storage.existingClaim -}}
{{- fail "storage.uri and storage.existingClaim are both set: artifacts live in one place. Keep one of them." -}}
{{- end -}}
{{- if not (or .storage.uri .storage.existingClaim) -}}
{{- fail "storage.uri and storage.existingClaim are both empty: the service reads the deploy pointer there. Set one of them." -}}
{{- end -}}
{{- if and .redis.existingSecret .features.existingClaim -}}
{{- fail "redis.existingSecret and features.existingClaim are both set: online features live in one place. Keep one of them." -}}
{{- end -}}
{{- if and (eq (dig "orchestration" "mode" "in_process" .settings) "kubernetes") (not .storage.uri) -}}
{{- fail "settings.orchestration.mode is 'kubernetes' and storage.uri is empty: a step's pod has no disk but its own. Set storage.uri to a bucket." -}}
{{- end -}}
{{- if and (eq (dig "orchestration" "mode" "in_process" .settings) "kubernetes") (not .redis.existingSecret) -}}
{{- fail "settings.orchestration.mode is 'kubernetes' and redis.existingSecret is empty: online features that a step's pod writes must outlive it. Set redis.existingSecret." -}}
{{- end -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas is %d: the least may not be above the most." (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .autoscaling.enabled (not (dig "requests" "cpu" "" .resources)) -}}
{{- fail "autoscaling.enabled needs resources.requests.cpu: utilisation is a share of what is requested." -}}
{{- end -}}
{{- if and .metrics.prometheusRule.enabled (not .metrics.prometheusRule.runbookUrl) -}}
{{- fail "metrics.prometheusRule.runbookUrl is empty: an alert must lead to a runbook. Set it to where docs/operations/runbooks.md is published." -}}
{{- end -}}
{{- if le (int .terminationGracePeriodSeconds) (int .preStopSeconds) -}}
{{- fail "terminationGracePeriodSeconds must be above preStopSeconds, or requests in flight are cut off." -}}
{{- end -}}
{{- end -}}
{{- end -}}
