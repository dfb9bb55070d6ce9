// Command empty does nothing: what the Go runtime itself costs, as the
// benchmark's measure.
package main

func main() {}
