{{- /* Name of the chart, at most 63 characters. */ -}}
{{- define "basketweave.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Name of the release's resources; 'prod' gives 'prod-basketweave', 'basketweave' stays as it is. */ -}}
{{- define "basketweave.fullname" -}}
{{- $name := include "basketweave.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Full name with a suffix, cut so that the whole has at most 63 characters. (list . "test") */ -}}
{{- define "basketweave.suffixed" -}}
{{- $suffix := index . 1 -}}
{{- $length := sub 62 (len $suffix) | int -}}
{{- printf "%s-%s" (include "basketweave.fullname" (index . 0) | trunc $length | trimSuffix "-") $suffix -}}
{{- end -}}

{{- define "basketweave.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "basketweave.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- /* Selectors never change, so they hold neither the version nor the chart. */ -}}
{{- define "basketweave.selectorLabels" -}}
app.kubernetes.io/name: {{ include "basketweave.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: service
{{- end -}}

{{- define "basketweave.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "basketweave.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "basketweave.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Where the container keeps what it writes, and where a claim's artifacts are mounted. */ -}}
{{- define "basketweave.home" -}}/var/lib/basketweave{{- end -}}
{{- define "basketweave.artifacts" -}}/var/lib/basketweave-artifacts{{- end -}}

{{- define "basketweave.storageRoot" -}}
{{- default (include "basketweave.artifacts" .) .Values.storage.uri -}}
{{- end -}}

{{- /* The settings of the values, and those that only the chart knows, as YAML. */ -}}
{{- define "basketweave.settings" -}}
{{- $own := dict
      "home" (include "basketweave.home" .)
      "storage_root" (include "basketweave.storageRoot" .)
      "deploy" (dict "start_service" false) -}}
{{- mergeOverwrite (deepCopy .Values.settings) $own | toYaml -}}
{{- end -}}

{{- define "basketweave.toml" -}}
{{- include "basketweave.settings" . | fromYaml | toToml -}}
{{- end -}}

{{- /* The same settings as environment variables: BASKETWEAVE_TRAIN__SEED: "7". */ -}}
{{- define "basketweave.environment" -}}
{{- $variables := dict -}}
{{- range $name, $value := include "basketweave.settings" . | fromYaml -}}
{{- if kindIs "map" $value -}}
{{- range $field, $setting := $value -}}
{{- if not (kindIs "invalid" $setting) -}}
{{- $_ := set $variables (printf "BASKETWEAVE_%s__%s" (upper $name) (upper $field)) (include "basketweave.variable" $setting) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $_ := set $variables (printf "BASKETWEAVE_%s" (upper $name)) (include "basketweave.variable" $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $variables -}}
{{- end -}}

{{- /* Numbers without the exponent that Go gives to large ones; lists and maps as JSON. */ -}}
{{- define "basketweave.variable" -}}
{{- if kindIs "string" . -}}{{ . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "basketweave.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurityContext.runAsUser | int64 }}
runAsGroup: {{ .Values.podSecurityContext.runAsGroup | int64 }}
fsGroup: {{ .Values.podSecurityContext.fsGroup | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "basketweave.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}
