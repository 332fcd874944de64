package volume

type requestState struct{}
