module peer

go 1.23.3

require github.com/VictoriaMetrics/VictoriaMetrics v1.110.0
