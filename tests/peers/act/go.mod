module peer

go 1.25.0

require github.com/nektos/act v0.2.89
